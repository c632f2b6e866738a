"""The loop of one training run: steps, epochs, checkpoints, and where it goes on after it was stopped."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NoReturn

import torch
from torch import nn

from u2pl import methods, processes
from u2pl.batches.loader import Batches, CollatedBatch
from u2pl.data.prepared import Split
from u2pl.errors import EndedElsewhere, Interrupted, UserError, enough_memory, is_out_of_memory, reason
from u2pl.files import sha256_json, write_json, write_text
from u2pl.inference.evaluator import Evaluation, evaluate, protocol
from u2pl.methods import Classes, Method, Step
from u2pl.runs.folder import RunFolder, device_name
from u2pl.runs.records import read_run
from u2pl.runs.results import write_samples
from u2pl.settings import ResolvedRun
from u2pl.training import distributed, memory
from u2pl.training.epoch_log import EpochLog
from u2pl.training.learner import Learner
from u2pl.training.machine import Machine

_LOG_EVERY = 10
"""Steps between two lines of events.jsonl, and between two looks at whether the loss is finite."""
_CHECKPOINT_SECONDS = 60
"""Least time between two checkpoints, unless the user says otherwise; an interruption always writes one."""
_LONG = 500
"""Steps from which on a run is long: what it takes is tried out before."""
_CHECKPOINT_SHARE = 0.02
"""Most of the time that may go into writing checkpoints."""

_DESCRIPTION = {
    *("name", "dataset", "split", "method", "seed"),
    *("overrides", "flavor", "recipe", "hyper", "fingerprint"),
}
"""What metrics.json repeats of run.json."""

_LESS_MEMORY = (
    "Use a smaller --micro-batch, which gives the same losses and thresholds, or --recompute, which changes no number; "
    "if that does not help, a smaller --set crop=..."
)

Observer = Callable[[str, int, int, Mapping[str, float]], None]
"""Called with (event, step, steps, metrics) where event is "step" or "epoch", for a progress bar.

Not every epoch has the metrics of a validation. Before a long run "memory" comes, with `memory.Trial.metrics`.
"""


@dataclass
class Progress:
    """What a checkpoint holds beside the tensors."""

    step: int = 0
    best: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def classes_of(split: Split) -> Classes:
    """What a method may know of a data set's classes."""
    return Classes(len(split.classes), split.ignore_index, split.background)


class Run:
    """The objects of one training run."""

    def __init__(
        self,
        resolved: ResolvedRun,
        split: Split,
        machine: Machine,
    ):
        self.spec, self.recipe, self.split = resolved.spec, resolved.recipe, split
        self.device, self.machine = distributed.local_device(), machine
        with enough_memory(_LESS_MEMORY):
            self._build(resolved)
        self.progress = Progress()
        self.log = EpochLog(self.device)
        self.scored: Evaluation | None = None
        """Of the network that the run is reported by; None where that was scored before this process."""
        self._saving = 0.0  # seconds that the last checkpoint took

    def _build(self, resolved: ResolvedRun) -> None:
        split, machine = self.split, self.machine
        torch.manual_seed(self.spec.seed)
        self.method: Method = methods.create(self.spec.method, classes_of(split), self.recipe, resolved.hyper)
        labeled, unlabeled = len(split.labeled), len(split.unlabeled)
        self.epoch_steps = methods.epoch_steps(
            self.spec.method, self.method.settings, self.recipe, labeled, unlabeled
        )
        self.steps = self.recipe.epochs * self.epoch_steps
        self.learner = Learner(
            self.method,
            self.recipe,
            self.steps,
            self.device,
            recompute=machine.recompute,
            compiled=machine.compiled,
        )
        self.method = self.learner.method

    def train(self, folder: RunFolder, observe: Observer, stopped: Callable[[], bool]) -> None:
        """In its folder, from the last checkpoint, or the beginning, to the end."""
        self.folder = folder
        stopped()  # asked before there is anything to save: from here on a signal waits until that is done
        try:
            with enough_memory(_LESS_MEMORY):
                self._train(observe, stopped)
        except Interrupted:
            raise
        except KeyboardInterrupt:  # a second signal
            self.folder.event("interrupted", self.progress.step, self._epoch)
            raise
        except BaseException as error:
            message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            with suppress(OSError):  # the disk may be what failed
                self.folder.event("failed", self.progress.step, self._epoch, message=message)
            raise

    def _train(self, observe: Observer, stopped: Callable[[], bool]) -> None:
        self._resume()
        progress = self.progress
        self.method.train()
        if progress.step == 0 and self.steps >= _LONG:
            self._try_memory(observe)
        if self._epoch_is_due():
            self._end_epoch(observe, stopped)
        batches = self._batches(progress.step, self.steps)
        clock = saved = time.monotonic()
        first = progress.step + 1
        for batch in batches:
            self._step(batch)
            if progress.step == first:
                observe("begun", first, self.steps, {})
            if progress.step % _LOG_EVERY == 0 or progress.step == self.steps:
                metrics = self._log_step()
                observe("step", progress.step, self.steps, metrics)
            now = time.monotonic()
            progress.seconds += now - clock
            clock = now
            # Only together, or some would wait where others do not; and the first alone knows what saving takes.
            due = not processes.rank() and clock - saved >= self._pause
            save, stop = distributed.any_of(due, stopped())
            if stop:
                self._stop()
            if save and progress.step < self.steps:
                self._check_finite()
                self._save()
                clock = saved = time.monotonic()
            if self._epoch_is_due():
                self._end_epoch(observe, stopped)
                clock = time.monotonic()
                if progress.step < self.steps and distributed.any_of(stopped())[0]:
                    self._stop()
        self._finish()

    @property
    def _pause(self) -> float:
        """Seconds from one checkpoint to the next."""
        if self.machine.save_every is not None:
            return self.machine.save_every
        return max(_CHECKPOINT_SECONDS, self._saving / _CHECKPOINT_SHARE)

    def _epoch_is_due(self) -> bool:
        """Whether the last step was an epoch's last, and that has not been recorded."""
        step, history = self.progress.step, self.progress.history
        return step > 0 and step % self.epoch_steps == 0 and (not history or history[-1]["step"] != step)

    def _stop(self) -> NoReturn:
        """Save all there is, and end; the others stay until the first has saved."""
        self._check_finite()
        distributed.first_alone(self._save)
        self.folder.event("interrupted", self.progress.step, self._epoch)
        if processes.rank():
            raise EndedElsewhere(Interrupted.exit_code)
        raise Interrupted(
            f"Stopped at step {self.progress.step} of {self.steps}; the state is saved in {self.folder.path}. "
            "Start the same command again to go on."
        )

    def _batches(self, start: int, end: int) -> Batches:
        return Batches(
            self.split,
            recipe=self.recipe,
            seed=self.spec.seed,
            start_step=start,
            end_step=end,
            unlabeled=self.method.uses_unlabeled,
            workers=self.machine.loaders(self.device.type),
            extra=self.method.streams(),
            choose=self.method.choose,
        )

    def _try_memory(self, observe: Observer) -> None:
        """Try a step with every loss before hours are spent, and say what it takes."""
        (batch,) = self._batches(self.steps - 1, self.steps)
        trial = memory.try_step(self.learner, batch.to(self.device), self._place(self.steps - 1))
        self.folder.event("memory", 0, 0, trial.metrics())
        observe("memory", 0, self.steps, trial.metrics())

    @property
    def _epoch(self) -> int:
        return min(self.progress.step // self.epoch_steps, self.recipe.epochs - 1)

    def _step(self, batch: CollatedBatch) -> None:
        place = self._place(self.progress.step)
        result = self.learner.step(batch.to(self.device), place)
        self.progress.step += 1
        self.log.add(result)

    def _place(self, index: int) -> Step:
        # All randomness of a step comes from (seed, step): nothing of it has to be saved or can be lost.
        seed = int(sha256_json([self.spec.seed, index])[:15], 16)
        torch.manual_seed(seed)
        epoch = min(index // self.epoch_steps, self.recipe.epochs - 1)
        return Step(index, epoch, self.recipe.epochs, self.epoch_steps, torch.Generator().manual_seed(seed))

    def _log_step(self) -> dict[str, float]:
        """Write the newest values to events.jsonl. The only place in the loop that waits for the device for
        its own sake.
        """
        self._check_finite()
        step = self.progress.step
        metrics = self.log.newest()
        metrics["lr"] = self.learner.groups[0]["lr"]
        self.folder.event("step", step, (step - 1) // self.epoch_steps, metrics)
        return metrics

    def _check_finite(self) -> None:
        found = self.log.first_not_finite()
        if found is None:
            return
        if processes.rank():
            raise EndedElsewhere
        back, terms = found
        step = self.progress.step - back + 1
        kept = self.folder.path / "last.pt"
        raise UserError(
            f"The loss is not finite at step {step} ({', '.join(terms) or 'their sum'}). Stopped; "
            + (f"the last good checkpoint is {kept}. " if kept.exists() else "there was no checkpoint yet. ")
            + f"Try a smaller learning rate: --set lr={self.recipe.lr / 10:g}"
        )

    def _end_epoch(self, observe: Observer, stopped: Callable[[], bool]) -> None:
        """Validate and record; where that is broken off it is made up for when the run goes on."""
        self._check_finite()
        progress = self.progress
        epoch = progress.step // self.epoch_steps - 1
        metrics: dict[str, float] = {}
        if progress.step == self.steps or (epoch + 1) % self.recipe.validate_every == 0:
            metrics |= self._validate(epoch, stopped)
        metrics |= self.log.means(self.split.classes)
        metrics["lr"] = self.learner.groups[0]["lr"]
        metrics["memory/peak_gib"] = memory.peak(self.device) / 2**30
        metrics["images_per_second"] = self._images_seen() / max(progress.seconds, 1e-9)
        metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self.log.clear()
        progress.history.append({"epoch": epoch, "step": progress.step, **metrics})
        self.folder.event("epoch", progress.step, epoch, metrics)
        self.folder.write_history(progress.history)
        observe("epoch", progress.step, self.steps, metrics)

    def _validate(self, epoch: int, stopped: Callable[[], bool]) -> dict[str, float]:
        """Score the network of an epoch that has ended; keep it where no validated one before was as good."""

        def after_round() -> None:
            if distributed.any_of(stopped())[0]:
                self._stop()

        progress = self.progress
        name, network = self.method.evaluated(epoch)
        last = progress.step == self.steps
        result = evaluate(network, self.split, self.recipe, keep_samples=last, after_round=after_round)
        if last:
            self.scored = result
        if last and self.folder.writes:
            write_samples(self.folder.path / "samples", self.split, self.recipe, result)
        if result.miou > progress.best:
            progress.best, progress.best_epoch = result.miou, epoch
            self.folder.save("best.pt", {"network": name, "epoch": epoch, "state": network.state_dict()})
        iou = {f"val/iou/{k}": v for k, v in result.iou(self.split.classes).items() if v is not None}
        return {"val/miou": result.miou, **iou}

    def _images_seen(self) -> int:
        return self.progress.step * self.recipe.batch * (2 if self.method.uses_unlabeled else 1)

    def _resume(self) -> None:
        for name in ("labeled", "unlabeled", "val") if self.folder.writes else ():
            lines = getattr(self.split, name)
            write_text(self.folder.path / f"{name}.txt", "".join(f"{line}\n" for line in lines))
        state = self.folder.load("last.pt")
        if state is None:
            self.folder.event("start", 0, 0, {"steps": self.steps}, self._where)
            return
        with self._own("last.pt", "Delete that file to go on from the checkpoint before it. "):
            self.learner.load_state_dict(state["learner"])
            self.progress = Progress(**state["progress"])
            # Checkpoints of earlier versions call class counts tallies, or have none.
            self.log.load(state["log"], state.get("class_counts", state.get("tallies", {})))
            if (
                state["progress"].keys() != vars(Progress()).keys()
                or not 0 <= self.progress.step <= self.steps
            ):
                raise ValueError(f"step {self.progress.step} of {self.steps}")
        self.folder.event("resume", self.progress.step, self._epoch, {"steps": self.steps}, self._where)

    @property
    def _where(self) -> str:
        """On which device the run goes on from here, which may be another one than it began on."""
        return f"on {device_name()}"

    @contextmanager
    def _own(self, name: str, remedy: str = "") -> Iterator[None]:
        """Take over what a file of the folder holds.

        Raises:
            UserError: it holds something else than this run wrote there.
        """
        try:
            yield
        except Exception as error:  # whatever other contents do to those who take them for their own
            if is_out_of_memory(error):
                raise
            why = f"{type(error).__name__}: {reason(error).rstrip(':.')}"
            raise UserError(
                f"{self.folder.path / name} is none of this run's checkpoints ({why}). "
                f"{remedy}Delete the folder to train the run from the beginning."
            ) from None

    def _save(self) -> None:
        start = time.monotonic()
        self.folder.save(
            "last.pt",
            {
                "learner": self.learner.state_dict(),
                "progress": vars(self.progress),
                "log": self.log.values(),
                "class_counts": self.log.class_counts,
            },
        )
        self._saving = time.monotonic() - start

    def _finish(self) -> None:
        progress = self.progress
        epoch, last = self._epoch, progress.history[-1]
        # One that is no number is not in the history.
        miou, iou = last.get("val/miou", math.nan), {c: last.get(f"val/iou/{c}") for c in self.split.classes}
        if self.recipe.checkpoint == "best" and 0 <= progress.best_epoch != epoch:
            result, epoch = self._return_to_best()
            miou, iou = result.miou, result.iou(self.split.classes)
        if not self.folder.writes:
            return
        name, network = self.method.evaluated(epoch)
        self._check_result(miou, network)
        self.folder.save("weights.pt", {"network": name, "epoch": epoch, "state": network.state_dict()})
        metrics = {
            **{key: value for key, value in read_run(self.folder.path).items() if key in _DESCRIPTION},
            "protocol": {
                "evaluation": protocol(self.recipe),
                "network": name,
                "checkpoint": self.recipe.checkpoint,
            },
            "split_source": self.split.manifest["source"],
            "labeled": len(self.split.labeled),
            "unlabeled": len(self.split.unlabeled),
            "miou": {
                "reported": miou,
                "last": last["val/miou"],
                "best": progress.best,
                "best_epoch": progress.best_epoch,
            },
            "iou": iou,
            "steps": progress.step,
            "epochs": self.recipe.epochs,
            "seconds": round(progress.seconds, 1),
            "images_per_second": round(self._images_seen() / max(progress.seconds, 1e-9), 1),
        }
        self.folder.event("end", progress.step, self._epoch)
        write_json(self.folder.path / "metrics.json", metrics)
        self.folder.sweep(finished=True)

    def _check_result(self, miou: float, network: nn.Module) -> None:
        """Check that what the run is to be reported by is a number; the last step's loss does not say so."""
        floats = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
        if math.isfinite(miou) and all(bool(torch.isfinite(tensor).all()) for tensor in floats):
            return
        raise UserError(
            f"The result is not finite: the mIoU, which is {miou:g}, or some weights. The run is not finished. Try a "
            f"smaller learning rate: --set lr={self.recipe.lr / 10:g}"
        )

    def _return_to_best(self) -> tuple[Evaluation, int]:
        """Give the method's network the weights of best.pt, score it, and say which epoch they are of.

        Scored again, so that what is reported is true of the weights that are kept: a run killed after best.pt was
        written repeats the epochs since its checkpoint, on some devices not to the last bit.
        """
        best = self.folder.load("best.pt")
        if best is None:
            raise UserError(
                f"{self.folder.path / 'best.pt'}, which the run is to be reported by, is gone. "
                "Delete that folder to train the run from the beginning."
            )
        with self._own("best.pt"):
            _, network = self.method.evaluated(best["epoch"])
            network.load_state_dict(best["state"])
        result = evaluate(network, self.split, self.recipe, keep_samples=True)
        if self.folder.writes:
            write_samples(self.folder.path / "samples", self.split, self.recipe, result)
        self.progress.best, self.progress.best_epoch = result.miou, best["epoch"]
        self.scored = result
        return result, best["epoch"]
