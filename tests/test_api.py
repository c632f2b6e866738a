"""What others build on: names and signatures do not change unnoticed, and importing them costs nothing."""

import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import u2pl
from u2pl.errors import UserError
from u2pl.project import Project

PUBLIC = {
    *("MemoryBank", "Model", "Prediction", "__version__", "load", "losses", "methods", "open_data"),
    *("runs", "results", "history"),
}
SIGNATURES = {
    "load": "(path, device)",
    "runs": "(project)",
    "results": "(project)",
    "history": "(run, project)",
    "open_data": "(dataset, split, *, folder, transform, val_transform)",
    "MemoryBank": "(capacities, features, *, judged)",
    "MemoryBank.push": "(self, representation_PD, mask_CP, judgement_CP)",
    "MemoryBank.sample": "(self, anchors, negatives, generator)",
    "Model.predict": "(self, images, *, window)",
    "Model.to": "(self, device)",
    "methods.create": "(name, classes, recipe, values)",
    "losses.contrastive.ranks": "(prob_CP)",
    "losses.contrastive.coarse_ranks": "(prob_CP, r_l, r_h)",
    "losses.contrastive.anchor_mask": "(label_P, prob_CP, delta_p)",
    "losses.contrastive.labeled_negative_mask": "(label_P, rank_CP, r_l)",
    "losses.contrastive.unlabeled_negative_mask": "(chosen_P, rank_CP, r_l, r_h)",
    "losses.contrastive.centers": "(representation_PD, mask_CP, total)",
    "losses.contrastive.sample": "(mask_CP, count, generator)",
    "losses.contrastive.info_nce": "(anchor_CMD, positive_CD, negative_KD, index_CMN, tau, here_CM, length_K)",
    "losses.contrastive.mean_over_classes": "(loss_C, use_C, classes)",
    "losses.partition.predict": "(logits_BChw, size)",
    "losses.partition.alpha_t": "(alpha0, epoch, epochs)",
    "losses.partition.gamma_t": "(entropy_BHW, valid_BHW, alpha)",
    "losses.partition.pseudo_label": "(label_BHW, entropy_BHW, gamma, ignore_index)",
}


def test_the_public_names_are_these() -> None:
    assert set(u2pl.__all__) == PUBLIC and set(dir(u2pl)) >= PUBLIC
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        u2pl.nothing  # noqa: B018


@pytest.mark.parametrize("name", SIGNATURES)
def test_their_signatures_are_these(name: str) -> None:
    import u2pl.losses.contrastive
    import u2pl.losses.partition

    found: object = u2pl
    for part in name.split("."):
        found = getattr(found, part)
    bare = [
        p.replace(annotation=p.empty, default=p.empty) for p in inspect.signature(found).parameters.values()
    ]  # type: ignore[arg-type]
    assert str(inspect.Signature(bare)) == SIGNATURES[name]


def test_importing_the_package_loads_nothing(tmp_path: Path) -> None:
    script = (
        "import sys, u2pl; print(sorted({'torch', 'numpy', 'pandas', 'mlflow', 'dvc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_a_split_is_torch_data_sets_and_hides_the_masks_of_its_unlabelled_images(
    tiny_project: Project,
) -> None:
    data = u2pl.open_data("tiny", "1/4", folder=tiny_project.root)
    assert (len(data.labeled), len(data.unlabeled), len(data.val)) == (4, 12, 4)
    image, mask = data.labeled[0]
    assert image.dtype == torch.uint8 and image.shape == (3, 64, 64)
    assert mask.dtype == torch.int64 and set(mask.unique().tolist()) <= {0, 1, 2, 3, 255}
    assert len(mask.unique()) > 1 and data.classes == data.labeled.images.classes
    assert (data.unlabeled[0][1] == data.ignore_index).all()
    name = data.labeled.names[0]
    assert np.array_equal(image.permute(1, 2, 0).numpy(), data.labeled.images.image(name))
    both = u2pl.open_data(
        "tiny", "1/4", folder=tiny_project.root, transform=lambda i, m: (i.float() / 255, m)
    )
    loader = torch.utils.data.DataLoader(both.labeled, batch_size=2)
    assert next(iter(loader))[0].dtype == torch.float32
    with pytest.raises(UserError, match="is not prepared"):
        u2pl.open_data("tiny", "1/3", folder=tiny_project.root)


@pytest.mark.slow
def test_the_example_trains_with_somebody_elses_loop_and_network(tmp_path: Path) -> None:
    example = Path(__file__).parents[1] / "examples" / "lightning_loop.py"
    copied = shutil.copy(example, tmp_path)
    script = (
        "from u2pl.models import torchvision_operators\n"  # where torchvision and torch do not fit
        "import math, lightning_loop\nfound = lightning_loop.main(3)\n"
        "values = {k: float(v) for k, v in found.trainer.callback_metrics.items()}\n"
        "assert values.keys() == {'L_s', 'L_u', 'L_c'} and all(map(math.isfinite, values.values())), values\n"
        "assert values['L_c'] > 0 and min(found.bank.filled_C.tolist()) > 0\n"
        "assert any(p.grad is not None for p in found.student.represent.parameters())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(copied).parent, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_what_the_example_adds_to_a_loop_is_some_forty_lines() -> None:
    text = (Path(__file__).parents[1] / "examples" / "lightning_loop.py").read_text()
    body = text[text.index("class SemiSupervised") : text.index("def on_before_zero_grad")]
    assert sum(1 for line in body.splitlines() if line.strip()) <= 45
