"""What every method must do; a new one is asked by being registered."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from methods.tiny_method import (
    CLASSES,
    EPOCHS,
    PARAMS,
    at,
    build,
    changed,
    make_batch,
    optimizer,
    step_of,
    train_step,
    warm_steps,
)
from tiny import REPOSITORY, edit_params
from torch import nn

from u2pl import methods
from u2pl.errors import UsageError
from u2pl.methods import Method
from u2pl.methods.registry import method as register
from u2pl.project import Project
from u2pl.runs.frames import series
from u2pl.settings import Params
from u2pl.training import memory
from u2pl.training.learner import Learner

every_method = pytest.mark.parametrize("name", methods.names())
every_flavor = pytest.mark.parametrize("flavor", list(PARAMS.values["flavors"]))


def flavored(name: str, flavor: str) -> Method:
    """For a batch of two images, which several replicas cannot share."""
    return build(name, flavor=flavor, replicas=1)


def teacher(method: Method) -> nn.Module | None:
    return getattr(method, "teacher", None)


def test_the_papers_four_methods_are_registered():
    assert {"suponly", "mt", "cutmix", "u2pl"} <= set(methods.names())


@every_method
@every_flavor
@pytest.mark.parametrize("epoch", ["warm", "after"])
def test_a_step_gives_finite_0d_losses_and_health(name: str, flavor: str, epoch: str):
    method = flavored(name, flavor)
    result = step_of(method, make_batch(), at(0 if epoch == "warm" else warm_steps(method)))
    assert result.losses
    for key, value in (result.losses | result.diagnostics).items():
        assert torch.as_tensor(value).shape == (), key
        assert torch.as_tensor(value).isfinite(), key


@every_method
def test_training_lowers_the_supervised_loss_on_a_batch(name: str):
    method, batch = build(name), make_batch()
    if "paste" in method.streams():  # would make other images of them in every step
        blank = torch.full_like(batch.labeled.mask, CLASSES.ignore_index)
        batch = batch._replace(extra={**batch.extra, "paste": batch.extra["paste"]._replace(mask=blank)})
    sgd = optimizer(method, lr=0.05)
    losses = [train_step(method, sgd, index, batch)["supervised"].item() for index in range(15)]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


@every_method
@every_flavor
def test_the_losses_are_named_after_the_terms_of_equation_1(name: str, flavor: str):
    method = flavored(name, flavor)
    losses = step_of(method, make_batch(), at(warm_steps(method))).losses
    known = {
        "suponly": ["supervised"],
        "mt": ["supervised", "unsupervised"],
        "cutmix": ["supervised", "unsupervised"],
        "u2pl": ["supervised", "unsupervised", "contrastive"],
    }
    assert list(losses) == known.get(name, list(losses))


@every_method
@every_flavor
def test_during_the_warm_start_only_the_labelled_images_count(name: str, flavor: str):
    method, batch = flavored(name, flavor), make_batch()
    if not warm_steps(method):
        pytest.skip("no warm start")
    other = changed(batch, "unlabeled", image=torch.full_like(batch.unlabeled.image, torch.nan))
    torch.manual_seed(0)
    assert list(step_of(method, batch, at(0)).losses) == ["supervised"]
    torch.manual_seed(0)
    assert step_of(method, other, at(warm_steps(method) - 1)).losses["supervised"].isfinite()


@every_method
@every_flavor
def test_no_training_signal_comes_from_the_true_labels_of_unlabelled_images(name: str, flavor: str):
    batch, results = make_batch(), []
    nothing = torch.full_like(batch.unlabeled.mask, CLASSES.ignore_index)
    partner = batch.extra["partner"]._replace(mask=nothing)
    blind = changed(batch, "unlabeled", mask=nothing)._replace(extra={**batch.extra, "partner": partner})
    for seen in (batch, blind):
        method = flavored(name, flavor)
        torch.manual_seed(0)
        results.append(step_of(method, seen, at(warm_steps(method))).losses)
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


@every_method
@every_flavor
def test_no_gradient_reaches_a_teacher_and_the_optimiser_does_not_know_it(name: str, flavor: str):
    method = flavored(name, flavor)
    sgd = optimizer(method)
    train_step(method, sgd, warm_steps(method), make_batch())
    trained = {id(p) for group in sgd.param_groups for p in group["params"]}
    if teacher(method) is not None:
        assert all(p.grad is None and id(p) not in trained for p in teacher(method).parameters())
    assert all(p.grad is not None for group in sgd.param_groups for p in group["params"])


@every_method
def test_every_parameter_that_takes_a_gradient_stands_in_one_group(name: str):
    method = build(name)
    groups = [group for optimizer in method.optimizers() for group in optimizer.param_groups]
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters() if p.requires_grad)


@every_method
def test_a_teacher_stays_in_evaluation_mode_and_changes_in_after_update_alone(name: str):
    method = build(name)
    if teacher(method) is None:
        pytest.skip("no teacher")
    method.train()
    assert not any(module.training for module in teacher(method).modules())
    before = {key: value.clone() for key, value in teacher(method).state_dict().items()}
    step_of(method, make_batch(), at(warm_steps(method)))
    assert all(torch.equal(value, before[key]) for key, value in teacher(method).state_dict().items())


@every_method
@every_flavor
def test_a_restored_method_takes_the_same_next_step(name: str, flavor: str):
    first, batch = flavored(name, flavor), make_batch()
    start = warm_steps(first)
    for index in (start, start + 1):
        train_step(first, optimizer(first), index, batch)
    second = flavored(name, flavor)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    losses = [train_step(m, optimizer(m), start + 2, make_batch(1)) for m in (first, second)]
    assert losses[0] == losses[1]
    theirs = second.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in first.state_dict().items())


@every_method
@every_flavor
def test_equal_seeds_give_equal_steps(name: str, flavor: str):
    runs = []
    for _ in range(2):
        method = flavored(name, flavor)
        sgd, start = optimizer(method), warm_steps(method)
        runs.append([train_step(method, sgd, start + k, make_batch(k)) for k in range(2)])
    assert runs[0] == runs[1]


@every_method
@every_flavor
def test_the_evaluated_network_answers_for_every_class(name: str, flavor: str):
    method = flavored(name, flavor).eval()
    for epoch in range(EPOCHS):
        kind, network = method.evaluated(epoch)
        assert kind in ("student", "teacher")
        assert network is getattr(method, kind)
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 32, 32), represent=False).logits.shape[1] == CLASSES.count


@every_method
@every_flavor
def test_labels_that_are_all_ignored_give_no_supervised_loss_and_no_nan(name: str, flavor: str):
    method, batch = flavored(name, flavor), make_batch()
    void = torch.full_like(batch.labeled.mask, CLASSES.ignore_index)
    batch = changed(batch, "labeled", mask=void)
    batch = batch._replace(extra={name: images._replace(mask=void) for name, images in batch.extra.items()})
    losses = train_step(method, optimizer(method), warm_steps(method), batch)
    assert losses["supervised"] == 0
    assert all(loss.isfinite() for loss in losses.values())
    assert all(value.isfinite().all() for value in method.state_dict().values())


@every_method
def test_a_student_that_diverges_is_told_by_its_loss_and_by_nothing_else(name: str):
    """Whatever else a method makes of such predictions, the engine must come to look at the loss."""
    method, batch = build(name), make_batch()
    start = warm_steps(method)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.fill_(torch.nan)
    for index in range(start, start + 3):
        loss = train_step(method, optimizer(method), index, batch)["supervised"]
        if any(stream.chosen for stream in method.streams().values()):
            method.choose(12, np.random.default_rng(index))
        assert not loss.isfinite()


@every_method
@every_flavor
def test_what_a_step_takes_can_be_tried_out(name: str, flavor: str):
    method = build(name, flavor=flavor, batch=4, replicas=2)
    learner = Learner(method, method.recipe, 100, torch.device("cpu"))
    before = copy.deepcopy(learner.state_dict()["method"])
    trial = memory.try_step(learner, make_batch(images=4), at(warm_steps(method)))
    assert trial.at_once in (4, 8) and trial.largest >= trial.at_once
    after = learner.state_dict()["method"]
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@every_method
def test_an_ignore_index_other_than_255_is_respected(name: str):
    classes, batch = methods.Classes(4, ignore_index=7, background=False), make_batch()
    masks = [m.where(m != 255, 7) for m in (batch.labeled.mask, batch.unlabeled.mask)]
    paste = batch.extra["paste"]._replace(
        mask=batch.extra["paste"].mask.where(batch.extra["paste"].mask != 255, 7)
    )
    method = build(name, classes)
    torch.manual_seed(0)
    mended = step_of(
        method,
        changed(changed(batch, "labeled", mask=masks[0]), "unlabeled", mask=masks[1])._replace(
            extra={**batch.extra, "paste": paste}
        ),
        at(warm_steps(method)),
    )
    method = build(name, methods.Classes(4, ignore_index=255, background=False))
    torch.manual_seed(0)
    usual = step_of(method, batch, at(warm_steps(method)))
    assert all(torch.equal(mended.losses[key], usual.losses[key]) for key in usual.losses)


def test_an_unknown_method_is_refused_with_the_nearest_name_wherever_it_is_asked_for():
    for ask in (
        lambda: methods.settings("u2lp", CLASSES, build("mt").recipe, {}),
        lambda: methods.create("u2lp", CLASSES, build("mt").recipe, {}),
    ):
        with pytest.raises(UsageError, match="Did you mean 'u2pl'"):
            ask()


def test_two_methods_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two methods are called 'mt'"):
        register("mt")(type(build("suponly")))


TOY = '''
"""Toy: cross-entropy, and a bonus for saying something at all."""

from u2pl.methods.registry import method
from u2pl.methods.suponly import SupOnly, SupOnlySettings


class ToySettings(SupOnlySettings):
    """Hyper-parameters of Toy."""

    bonus: float


@method("toy")
class Toy(SupOnly):
    """A second loss beside SupOnly's."""

    settings_class = ToySettings

    def supervised_losses(self, outputs, targets):
        losses = super().supervised_losses(outputs, targets)
        return losses | {"bonus": self.settings.bonus * losses["supervised"]}
'''


def test_a_new_method_is_one_new_file_and_its_values_in_params_yaml(tiny_project: Project, tmp_path: Path):
    library = tmp_path / "library"
    shutil.copytree(REPOSITORY / "u2pl", library / "u2pl", ignore=shutil.ignore_patterns("__pycache__"))
    (library / "u2pl" / "methods" / "toy.py").write_text(TOY)
    edit_params(tiny_project, lambda v: v.update(toy={"epoch": "labeled", "bonus": 0.5}))
    words = ["train", "--dataset", "tiny", "--split", "1/4", "--method", "toy", "--set", "bonus=0.25"]
    done = subprocess.run(
        [sys.executable, "-m", "u2pl_cli", *words],
        cwd=tiny_project.root,
        env={**os.environ, "PYTHONPATH": str(library)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    history = (tiny_project.runs / "tiny-1_4-toy-bonus=0.25-s0" / "history.csv").read_text()
    assert "train/loss/bonus" in history.splitlines()[0]


MINE = '''
"""Mine: MT whose student sees noise on unlabelled images."""

import torch
from u2pl.methods.mt import MeanTeacher
from u2pl.methods.registry import method


@method("mine")
class Mine(MeanTeacher):
    """L_s + lambda_u L_u."""

    def augmented(self, unlabeled, step):
        noise = torch.randn(unlabeled.image.shape, generator=step.generator)
        return unlabeled._replace(image=unlabeled.image + 0.3 * noise)
'''


def test_a_method_of_ten_lines_inherits_all_settings_and_needs_an_empty_section(
    tiny_project: Project, tmp_path: Path
):
    """And what recipes and flavours say of the groups of its settings reaches it like the method it is built on."""
    library = tmp_path / "library"
    shutil.copytree(REPOSITORY / "u2pl", library / "u2pl", ignore=shutil.ignore_patterns("__pycache__"))
    (library / "u2pl" / "methods" / "mine.py").write_text(MINE)
    overrides = {"teacher.warm_start_epochs": 2, "u2pl.ema_decay": 0.5}
    edit_params(tiny_project, lambda v: v["recipes"]["tiny"]["overrides"].update(overrides))

    def u2pl(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "u2pl_cli", *words],
            cwd=tiny_project.root,
            env={**os.environ, "PYTHONPATH": str(library)},
            capture_output=True,
            text=True,
        )

    words = ["--dataset", "tiny", "--split", "1/4", "--set", "flavor=released", "--set", "replicas=1"]
    words += ["--set", "mixing.cutmix_probability=1"]
    refused = u2pl("train", "--method", "mine", *words[:4])
    assert refused.returncode == 2
    assert (
        "No method called 'mine'. Only its section in params.yaml is missing. Add the line: mine: {}"
        in refused.stderr
    )
    edit_params(tiny_project, lambda v: v.update(mine={}))
    refused = u2pl("train", "--method", "mine", *words)
    assert "a run of method 'mine' reads the sections" in refused.stderr
    done = u2pl("train", "--method", "mine", *words[:-2])
    assert done.returncode == 0, done.stderr
    run = tiny_project.runs / "tiny-1_4-mine-flavor=released-replicas=1-s0"
    params = Params.read(tiny_project)
    spec = params.spec("tiny", "1/4", "mt", 0, {"flavor": "released", "replicas": 1})
    hyper = json.loads((run / "run.json").read_text())["facts"]["hyper"]
    assert hyper == params.resolve(spec).hyper
    assert (hyper["warm_start_epochs"], hyper["teacher_mode"]) == (2, "train")
    assert json.loads((run / "metrics.json").read_text())["protocol"]["network"] == "teacher"
    history = series(run)
    assert {"train/loss/supervised", "train/loss/unsupervised", "train/gamma_t", "val/miou"} <= history.keys()
