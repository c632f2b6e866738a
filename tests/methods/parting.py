"""Steps of training by one process or by several, in one part or in many, to compare."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from methods.tiny_method import EPOCH_STEPS, EPOCHS, at, build, changed, make_batch, warm_steps
from torch import Tensor

from u2pl import processes
from u2pl.batches.loader import Batch
from u2pl.losses import contrastive
from u2pl.training.learner import Learner

IMAGES = 4
"""Labelled ones of a batch, and unlabelled ones."""

REGIONS = {"paste_classes": 2, "region_area": 0.01, "cover_area": 0.01, "confidence_momentum": 0.5}
"""Of the tiny images something is always large enough."""

KINDS_OF_CCT = ("f_noise", "f_drop", "dropout", "g_cutout", "con_msk", "obj_msk", "i_vat")

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "suponly": ("suponly", {}),
    "hard pixels": (
        "suponly",
        {"loss": "ohem", "ohem_kept": 0.3, "ohem_threshold": 0.2, "auxiliary": 0.4, "dropout": 0.3},
    ),
    "hard pixels, groups": ("u2pl", {"loss": "ohem", "ohem_kept": 0.5, "auxiliary": 0.4, "replicas": 2}),
    "hard pixels, two": ("cps", {"loss": "ohem", "ohem_kept": 0.2, "ohem_threshold": 0.3, "auxiliary": 0.4}),
    "cps": ("cps", {"dropout": 0.3}),
    "cct": ("cct", {"dropout": 0.3, "decoders": dict.fromkeys(KINDS_OF_CCT, 1)}),
    "cct, groups": ("cct", {"replicas": 2}),
    "pseudoseg": ("pseudoseg", {"dropout": 0.3}),
    "pseudoseg, groups": ("pseudoseg", {"replicas": 2}),
    "pc2seg": ("pc2seg", {"dropout": 0.3, "ramp": 0, "anchors_per_image": 9, "pool": 24}),
    "pc2seg, groups": ("pc2seg", {"replicas": 2, "ramp": 0, "negatives": "uniform"}),
    # A detector that moved by Adam would, after a step, turn rounding into another choice of who learns from whom; so
    # would a xi within rounding of some flaw's probability, which 0.45 is not here.
    "gct": ("gct", {"dropout": 0.3, "ramp_epochs": 0, "xi": 0.45, "detector_lr": 1e-9}),
    "gct, groups": ("gct", {"replicas": 2, "flaw_map": "clamped", "detector_lr": 1e-9}),
    "cps without cutmix": ("cps", {"cutmix": False, "replicas": 2}),
    "ael": ("ael", {"threshold": 0.3, "labeled_consistency": True, "dropout": 0.3, **REGIONS}),
    "u2pl-ael": ("u2pl-ael", {"contrast_from": 0, "threshold": 0.3, **REGIONS}),
    "mt": ("mt", {"dropout": 0.3}),
    "cutmix": ("cutmix", {"cutmix_probability": 1}),
    "u2pl": ("u2pl", {"cutmix_probability": 1, "dropout": 0.3}),
    "groups": ("u2pl", {"replicas": 2, "cutmix_probability": 1}),
    "no bank": ("u2pl", {"memory_bank": False, "contrast": "L_b"}),
    "no bank, groups": ("u2pl", {"memory_bank": False, "replicas": 2}),
    "no negatives": (
        "u2pl",
        {"memory_bank": False, "labeled_negatives": False, "alpha0": 0, "replicas": 2},
    ),
    "released": (
        "u2pl",
        {
            "flavor": "released",
            "replicas": 2,
            "teacher_statistics": "average",
            "M": 8,
            "N": 9,
            "dropout": 0.3,
        },
    ),
}
"""Method and settings; with fixed statistics of batch norm, which alone depend on how a batch is cut."""


def labels_that_differ(batch: Batch) -> Batch:
    """In every image another number of pixels has a label, and some of each unlabelled one are padding."""
    mask, valid = batch.labeled.mask.clone(), batch.unlabeled.valid.clone()
    for k in range(len(mask)):
        mask[k, : 3 * k] = 255
        valid[k, :, : 2 * k] = False
    return changed(changed(batch, "labeled", mask=mask), "unlabeled", valid=valid)


def share(batch: Batch) -> Batch:
    """This process's images."""
    each = len(batch.labeled.image) // processes.size()
    mine = slice(processes.rank() * each, (processes.rank() + 1) * each)
    labeled, unlabeled, extra = batch
    return Batch(labeled.part(mine), unlabeled.part(mine), {k: v.part(mine) for k, v in extra.items()})


def train(kind: str, micro_batch: int = 0, steps: int = 3, **options: bool) -> dict[str, Tensor]:
    """Everything that some steps say and leave behind, from the end of the warm start on."""
    name, overrides = KINDS[kind]
    method = build(name, batch=IMAGES, batch_norm="fixed", micro_batch=micro_batch, **overrides)
    learner = Learner(method, method.recipe, EPOCHS * EPOCH_STEPS, torch.device("cpu"), **options)
    method.train()
    found: dict[str, Tensor] = {}
    centers: list[Tensor] = []
    original = contrastive.centers

    def noted(*arguments: Any) -> tuple[Tensor, Tensor]:
        center_CD, present_C = original(*arguments)
        centers.append(center_CD)
        return center_CD, present_C

    start = 2 * EPOCH_STEPS if name == "suponly" else max(warm_steps(method) - 1, 0)
    contrastive.centers = noted
    for index in range(start, start + steps):
        result = learner.step(share(labels_that_differ(make_batch(index, images=IMAGES))), at(index))
        for key, value in (result.losses | result.diagnostics | result.class_counts).items():
            found[f"step {index} {key}"] = torch.as_tensor(value, dtype=torch.float64)
    contrastive.centers = original
    found |= {f"centres {number}": center_CD for number, center_CD in enumerate(centers)}
    return found | {f"state {key}": value.clone() for key, value in method.state_dict().items()}


def work(rank: int, size: int, kinds: Sequence[tuple[str, int]], folder: Path) -> None:
    """One of several processes."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet{size}", rank=rank, world_size=size)
    torch.save({kind: train(*kind) for kind in kinds}, folder / f"{size}-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
