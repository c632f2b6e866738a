"""Ways to compute a step that change its speed or memory, and not what it is."""

import copy
from functools import partialmethod
from typing import Any

import pytest
import torch
from methods.tiny_method import EPOCH_STEPS, EPOCHS, at, build, make_batch, step_of
from torch import Tensor, nn

from u2pl.training.learner import Learner

CPU = torch.device("cpu")
START = EPOCH_STEPS


def learner(**options: Any) -> Learner:
    overrides = {k: options.pop(k) for k in ("precision", "dropout", "momentum") if k in options}
    method = build("u2pl", batch=2, **overrides)
    return Learner(method, method.recipe, EPOCHS * EPOCH_STEPS, CPU, **options)


def take(of: Learner, steps: int = 3, first: int = START - 1) -> dict[str, Tensor]:
    """Losses of some steps, and the state afterwards."""
    of.method.train()
    found: dict[str, Tensor] = {}
    for index in range(first, first + steps):
        result = of.step(make_batch(index), at(index))
        found |= {f"{index} {name}": loss for name, loss in result.losses.items()}
    return found | {name: value.clone() for name, value in of.method.state_dict().items()}


def test_computing_activations_again_changes_no_number_and_keeps_fewer_of_them():
    """Batch norm's running statistics included, which a second pass must not move again."""
    kept, again = [], []
    found = []
    for recompute, sizes in ((False, kept), (True, again)):
        one = learner(recompute=recompute)

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            found.append(take(one))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    assert sum(again) < 0.7 * sum(kept)


def test_recomputing_counts_each_batch_once_and_leaves_batch_norm_as_it_was():
    one, plain = learner(recompute=True), learner()
    for of in (one, plain):
        take(of, 2)
    for ours, theirs in zip(one.method.student.modules(), plain.method.student.modules(), strict=True):
        if isinstance(ours, nn.BatchNorm2d) and isinstance(theirs, nn.BatchNorm2d):
            assert ours.momentum == theirs.momentum == 0.1
            assert torch.equal(ours.num_batches_tracked, theirs.num_batches_tracked)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_compiled_networks_take_the_same_steps(monkeypatch: pytest.MonkeyPatch):
    """Captured whole, without what would break a graph in two; run as they are, since compiling takes minutes."""
    plain = take(learner())
    torch._dynamo.reset()
    monkeypatch.setattr(
        nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager", fullgraph=True)
    )
    compiled = take(learner(compiled=True))
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-5, atol=1e-6, msg=name)
    torch._dynamo.reset()


def test_in_half_precision_losses_are_scaled_and_a_step_with_infinite_gradients_is_left_out():
    one = learner(precision="float16")
    assert one.scaler.is_enabled()
    assert all(value.isfinite().all() for value in take(one, 2).values())
    before = {k: v.clone() for k, v in one.method.student.named_parameters()}
    scale = one.scaler.get_scale()
    one.method.student.classifier[-1].weight.register_hook(lambda gradient: gradient * torch.inf)
    one.step(make_batch(9), at(START + 1))
    assert one.scaler.get_scale() < scale
    assert all(torch.equal(value, before[k]) for k, value in one.method.student.named_parameters())


def test_the_scale_of_half_precision_is_remembered():
    one, other = learner(precision="float16"), learner(precision="float16")
    take(one, 1)
    one.scaler.update(1024.0)
    other.load_state_dict(one.state_dict())
    assert (
        other.scaler.get_scale() == one.scaler.get_scale() != learner(precision="float16").scaler.get_scale()
    )


def test_the_state_of_an_earlier_version_which_had_one_optimiser_goes_on():
    one, other = learner(), learner()
    take(one)
    state = copy.deepcopy(one.state_dict())
    (state["optimizer"],) = state.pop("optimizers")
    other.load_state_dict(state)
    ours, theirs = (take(each, 2, START + 2) for each in (one, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_step_is_that_of_plain_stochastic_gradient_descent():
    """Momentum's buffers that are there from the beginning make no difference to torch's own, slow optimiser."""
    one = learner(dropout=0)
    torch.manual_seed(0)
    method = build("u2pl", batch=2, dropout=0).train()
    recipe = method.recipe
    groups = method.parameter_groups()
    slow = torch.optim.SGD(
        groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay, foreach=False, fused=False
    )
    rates = [group["lr"] for group in slow.param_groups]
    found = take(one, 3)
    for index in range(START - 1, START + 2):
        for group, lr in zip(slow.param_groups, rates, strict=True):
            group["lr"] = lr * (1 - index / (EPOCHS * EPOCH_STEPS)) ** recipe.poly_power
        slow.zero_grad(set_to_none=True)
        sum(step_of(method, make_batch(index), at(index)).losses.values()).backward()
        slow.step()
        method.after_update(at(index))
    for name, value in method.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)
