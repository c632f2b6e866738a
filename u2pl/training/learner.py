"""Trains a method step by step: the gradients of its micro-batches, the optimisers, and whatever follows them."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from u2pl import processes
from u2pl.batches.loader import Batch
from u2pl.methods import Method, Step
from u2pl.models.backbone import Backbone
from u2pl.settings import Recipe
from u2pl.training.step import Losses, StepResult, losses_of, targets_of


class Learner:
    """A method on its device, with its optimisers and learning rates; one of several processes where there are some.

    Args:
        method: built, with the same weights in every process.
        recipe: how it is trained.
        steps: of the whole run.
        device: to train on.
        recompute: compute the backbone's activations again in the backward pass instead of keeping them. Takes a third
            more time, far less memory, and changes no number.
        compiled: let torch.compile fuse what it can; numbers change by rounding.
    """

    def __init__(
        self,
        method: Method,
        recipe: Recipe,
        steps: int,
        device: torch.device,
        *,
        recompute: bool = False,
        compiled: bool = False,
    ):
        if processes.size() > 1 and device.type == "cuda":
            # torch's own would drop the activations in timm's norms.
            from timm.layers import convert_sync_batchnorm

            method = convert_sync_batchnorm(method)
        self.method: Method = method.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe, self.steps, self.device = recipe, steps, device
        trained = [
            network
            for network in method.children()
            if any(parameter.requires_grad for parameter in network.parameters())
        ]
        if compiled:
            for network in method.children():
                network.compile()
        for module in method.modules():
            if isinstance(module, Backbone):
                module.recompute = recompute
        several = processes.size() > 1
        self.wrappers = {network: _wrapped(network, device) for network in trained} if several else {}
        self.optimizers = method.optimizers()
        self.base_lr = [group["lr"] for group in self.groups]
        # In half precision small gradients would become 0 and large ones infinite; steps with such are left out.
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Of parameters, of all optimisers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self, batch: Batch, step: Step) -> StepResult:
        """Train on one batch.

        Args:
            batch: this process's images.
            step: where training stands.

        Returns:
            Losses, diagnostics and class counts of the step over all processes, still on the device. Nothing here
            waits for it but a method that looks at a prediction on the host, and several processes: how many
            negatives each has found, they must tell each other.
        """
        factor = (1 - step.index / self.steps) ** self.recipe.poly_power
        for group, lr in zip(self.groups, self.base_lr, strict=True):
            group["lr"] = lr * factor
        self.zero_grad()
        losses: Losses = {}
        targets = targets_of(self.method, batch, step)
        for of_micro_batch in losses_of(self.method, targets, step, self.wrappers):
            self.backward(torch.stack(list(of_micro_batch.values())).sum())
            for name, loss in of_micro_batch.items():
                losses[name] = losses.get(name, 0) + loss.detach()
        self.update()
        self.method.after_update(step)
        everywhere = processes.total(torch.stack(list(losses.values())))
        return StepResult(
            dict(zip(losses, everywhere.unbind(), strict=True)), targets.diagnostics, targets.class_counts
        )

    def backward(self, loss: Tensor) -> None:
        """Add a micro-batch's gradient to the step's."""
        # The wrapper takes the mean over processes of gradients that are to add up.
        self.scaler.scale(loss * processes.size()).backward()

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def update(self) -> None:
        """The optimisers' step; of one whose networks took no part in the losses, as in a warm start, there is none."""
        for optimizer in self.optimizers:
            if any(
                parameter.grad is not None
                for group in optimizer.param_groups
                for parameter in group["params"]
            ):
                self.scaler.step(optimizer)
        self.scaler.update()
        if self.device.type == "cpu" and processes.size() > 1:
            # Synchronised batch norm is for GPUs. Here each process sees its own images, and all keep the mean.
            norms = [m for m in self.method.modules() if isinstance(m, nn.BatchNorm2d)]
            processes.mean_([b for m in norms for b in m.buffers() if b.is_floating_point()])

    def state_dict(self) -> dict[str, Any]:
        """All that must be known to go on."""
        return {
            "method": self.method.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            Exception: of any kind where it is the state of something else.
        """
        self.method.load_state_dict(state["method"])
        # A run of an earlier version, which had one, goes on.
        saved = state["optimizers"] if "optimizers" in state else [state["optimizer"]]
        for optimizer, its in zip(self.optimizers, saved, strict=True):
            optimizer.load_state_dict(its)
            for parameter, own in optimizer.state.items():  # which the optimiser takes as they come
                if any(t.shape != parameter.shape for t in own.values() if isinstance(t, Tensor) and t.ndim):
                    raise ValueError("momentum of another network")
        self.scaler.load_state_dict(state["scaler"])


def _wrapped(network: nn.Module, device: torch.device) -> DistributedDataParallel:
    with warnings.catch_warnings():
        # The argument has another name from torch 2.13 on.
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
        return DistributedDataParallel(
            network,
            device_ids=[device.index] if device.type == "cuda" else None,
            # Statistics are synchronised by batch norm, or by `update`.
            broadcast_buffers=False,
            # In the warm start nothing asks for representations.
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
        )
