"""Where a run departs from the recipe of the paper: what a reader must know to judge a number beside theirs."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from u2pl.project import Project
from u2pl.settings import RESNETS, Params

from .figures import read_figure
from .plans import ActivePlan, spec_of
from .tables import bind, read_table

_VOC = {
    "backbone": "resnet101",
    "weights": "imagenet",
    "output_stride": 8,
    "multi_grid": True,
    "zero_init_residual": True,
    "width": 256,
    "representation": 256,
    "dropout": 0.1,
    "resize": 1.0,
    "crop": 513,
    "scale": [0.5, 2.0],
    "padding_label": "ignore",
    "padding_unlabeled": "ignore",
    "labeled_order": "permutations",
    "batch": 16,
    "batch_norm": "batch",
    "replicas": 1,
    "loss": "ce",
    "ohem_threshold": 0.7,
    "ohem_kept": 0.0845507,
    "auxiliary": 0.0,
    "epochs": 80,
    "limit_batches": 0,
    "lr": 0.001,
    "head_lr_multiplier": 10,
    "momentum": 0.9,
    "weight_decay": 0.0001,
    "poly_power": 0.9,
    "precision": "float32",
    "evaluation": "center",
    "score_padding": False,
    "absent_iou": "skip",
    "checkpoint": "last",
}
_OF_RESNETS = ("multi_grid", "zero_init_residual")
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "voc": _VOC,
    "cityscapes": _VOC
    | {
        "crop": 769,
        "epochs": 200,
        "lr": 0.01,
        "weight_decay": 0.0005,
        "loss": "ohem",
        "auxiliary": 0.4,
        "evaluation": "sliding",
    },
}
"""Data set -> the recipe of Sec. 4.1 and App. A; where they are silent, what docs/fidelity.md decides."""

HYPER: Mapping[str, Any] = {
    "epoch": "labeled",
    "ema_decay": 0.99,
    "alpha0": 0.2,
    "dpa": True,
    "eta": 1.0,
    "teacher_mode": "eval",
    "entropy_pass": "plain",
    "teacher_statistics": "average",
    "warm_teacher": "copy",
    "first_epoch": "average",
    "cutmix_probability": 0.5,
    "lambda_c": 0.1,
    "contrast": "L_c",
    "M": 50,
    "N": 256,
    "tau": 0.5,
    "delta_p": 0.3,
    "r_l": 3,
    "r_h": 20,
    "prt": True,
    "negatives": "unreliable",
    "memory_bank": True,
    "queue": 30000,
    "queue_background": 50000,
    "large_queue": "background",
    "pairing": "class",
    "labeled_negatives": True,
    "negative_label": "any",
    "at_threshold": False,
    "anchors": "reliable",
    "center": "anchors",
    "normalizer": "all",
    "label_points": "aligned",
}
"""Table A1 and App. A, and docs/fidelity.md: hyper-parameters of the methods that have them."""

_CPS = {"warm_start_epochs": 0, "cutmix": True, "lambda_mixed": 1.0, "lambda_plain": 1.5}
_CCT = {
    "decoders": {
        **dict.fromkeys(("f_noise", "f_drop", "dropout", "g_cutout", "con_msk", "obj_msk"), 2),
        "i_vat": 0,
    },
    "context": [0],
    "weight": 30.0,
    "ramp": 0.1,
}
_GCT = {
    "lambda_dc": 100.0,
    "ramp_epochs": 3,
    "lambda_fc": 1.0,
    "lambda_d": 10.0,
    "xi": 0.6,
    "flaw_map": "raw",
    "detector_lr": 0.0002,
}
_AEL = {
    "warm_start_epochs": 0,
    "confidence_momentum": 0.999,
    "confidence_start": "random",
    "confidence_mean": "image",
    "absent_class": "keep",
    "copy_paste": True,
    "paste_share": 0.5,
    "paste_classes": 1,
    "paste_scale": [0.1, 2.0],
    "paste_power": 1.0,
    "paste_except": [],
    "adaptive_cutmix": True,
    "region_area": 0.03,
    "cover_area": 0.03,
    "equalization": True,
    "beta": 1.0,
    "reweighting": True,
    "gamma": 2.0,
    "threshold": 0.7,
    "weights_sum": "image",
    "labeled_consistency": False,
    "alpha_w": 1.0,
    "label_mode": "eval",
}
_U2PL_AEL = _AEL | {"entropy_filter": "highest", "contrast_from": 1, "contrast_dpa": True}
_AEL_ON_CITYSCAPES = {
    "paste_classes": 3,
    "paste_except": [0, 1, 2, 8, 10],
    "region_area": 0.005,
    "cover_area": 0.01,
    "threshold": 0.0,
}
_STRONG = {
    "jitter_probability": 1.0,
    "jitter_brightness": 0.5,
    "jitter_contrast": 0.5,
    "jitter_saturation": 0.5,
    "jitter_hue": 0.25,
    "grayscale_probability": 0.0,
    "blur_probability": 0.0,
    "blur_sigma": [0.1, 2.0],
    "cutout": 0.0975,
}
_PSEUDOSEG = _STRONG | {"key_channels": 128, "temperature": 0.5, "lambda_consistency": 1.0}
_PC2SEG = _STRONG | {
    "projection": 128,
    "anchors_per_image": 512,
    "negatives_per_anchor": 200,
    "pool": 4096,
    "negatives": "debiased_other",
    "tau": 0.07,
    "lambda_cy": 1.0,
    "lambda_ct": 0.1,
    "ramp": 0.05,
}
METHODS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "voc": {
        **{name: {"warm_start_epochs": 1} for name in ("mt", "cutmix", "u2pl")},
        "cps": _CPS,
        "cct": _CCT,
        "gct": _GCT,
        "ael": _AEL,
        "u2pl-ael": _U2PL_AEL,
        "pseudoseg": _PSEUDOSEG,
        "pc2seg": _PC2SEG,
    },
    "cityscapes": {
        **{name: {"warm_start_epochs": 20} for name in ("mt", "cutmix", "u2pl")},
        "cps": _CPS | {"lambda_mixed": 5.0, "lambda_plain": 6.0},
        "cct": _CCT | {"context": [0, 1, 2, 3, 4, 8, 9, 10]},
        "gct": _GCT | {"ramp_epochs": 5},
        "ael": _AEL | _AEL_ON_CITYSCAPES,
        "u2pl-ael": _U2PL_AEL | _AEL_ON_CITYSCAPES | {"contrast_from": 20},
        "pseudoseg": _PSEUDOSEG,
        "pc2seg": _PC2SEG | {"cutout": 0.0},
    },
}
"""Data set -> method -> hyper-parameters that are its own, or that are others there: App. A, the papers of CPS and AEL,
and docs/fidelity.md."""

APART = {"stem", "micro_batch"}
"""Settings whose departures are told in words of their own."""
NO_MATTER = {"flavor", "interpolation", "unlabeled_truth", "validate_every"}
"""Settings that name others, that move no number, or none by more than a grey level."""

NAMES = {
    "lr": "learning rate",
    "limit_batches": "most steps of an epoch",
    "loss": "loss on true labels",
    "auxiliary": "weight of the auxiliary head",
    "head_lr_multiplier": "learning rate of the heads, times",
    "evaluation": "evaluated by",
    "weights": "start from weights",
    "batch_norm": "batch norm's statistics",
    "replicas": "groups of a batch with thresholds and centres of their own:",
    "dpa": "dynamic partition adjustment",
    "prt": "probability rank threshold",
    "memory_bank": "memory bank",
    "contrast": "contrastive loss",
    "epoch": "epochs over the images",
    "scale": "random scale",
    "paste_scale": "random scale of what is pasted",
    "paste_except": "classes never pasted:",
    "resize": "images resized by",
    "queue": "queue of",
    "queue_background": "queue of the background",
    "warm_start_epochs": "warm start, epochs",
    "poly_power": "power of the schedule",
}
"""Settings that need other words than their names."""


def departures(
    dataset: str,
    method: str,
    recipe: Mapping[str, Any],
    hyper: Mapping[str, Any],
    swept: Collection[str] = (),
) -> list[str]:
    """Where a run departs from the paper's recipe, a phrase each.

    Args:
        dataset: of the run; of one that the paper does not have, nothing departs.
        method: of the run.
        recipe: the run's recipe.
        hyper: the settings of its method.
        swept: settings that the paper's own table varies; their short names.
    """
    if dataset not in RECIPES:
        return []
    return list(_departures(dataset, method, recipe, hyper, swept))


def of_plan(project: Project, active: ActivePlan, *, bfloat16: bool | None = None) -> dict[str, list[str]]:
    """Where the runs of a plan depart from the paper's recipe: phrase -> names of the runs, by data set.

    A setting that a table varies is none where the run stands in that table.

    Args:
        project: whose params.yaml is read.
        active: the plan.
        bfloat16: whether precision `auto` is bfloat16; None: as on this machine.
    """
    params = Params.read(project)
    swept: dict[str, set[str]] = {name: set() for name in active.runs}
    for run_name, places in active.shown_in.items():
        swept[run_name].update(*(_swept(project, active, place) for place in places))
    found: dict[str, list[str]] = {}
    for name, run in active.runs.items():
        resolved = params.resolve(spec_of(run), bfloat16=bfloat16)
        recipe = resolved.recipe.model_dump()
        for text in departures(run.dataset, run.method, recipe, resolved.hyper, swept[name]):
            found.setdefault(f"{run.dataset}: {text}", []).append(name)
    return found


def _swept(project: Project, active: ActivePlan, shows: str) -> set[str]:
    """Short names of all settings that a table or figure varies."""
    if shows in active.figures:
        sets = [run.set for run in read_figure(project, shows).runs]
    else:
        bound = active.tables[shows]
        table = bind(read_table(project, bound.table), bound.dataset, bound.binding)
        sets = [cell.set for cell in table.cells()]
    return {key.rpartition(".")[2] for values in sets for key in values}


def _departures(
    dataset: str, method: str, recipe: Mapping[str, Any], hyper: Mapping[str, Any], swept: Collection[str]
) -> Iterator[str]:
    theirs = {**RECIPES[dataset], **HYPER, **METHODS[dataset].get(method, {})}
    own = {**recipe, **hyper}
    is_resnet = recipe["backbone"] in RESNETS
    if not is_resnet:  # another encoder is one departure; what only ResNets have is none besides
        own = {key: value for key, value in own.items() if key not in _OF_RESNETS}
    for key, value in theirs.items():
        if key in own and key not in swept and not _equal(own[key], value):
            yield f"{NAMES.get(key, key)} {_word(own[key])} instead of {_word(value)}"
    if recipe["micro_batch"]:
        yield f"batch norm over {recipe['micro_batch']} images instead of {RECIPES[dataset]['batch']}"
    if is_resnet and recipe["stem"] == "plain":
        yield "the backbone's stem is one 7x7 convolution, in the released code three of 3x3"


def _equal(own: Any, theirs: Any) -> bool:
    return list(own) == list(theirs) if isinstance(theirs, list) else bool(own == theirs)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):  # ends of a range, or classes
        return (" to " if all(isinstance(each, float) for each in value) else ", ").join(
            map(str, value)
        ) or "none"
    # Weights of one's own are known by their hash, or by a path that says nothing to a reader.
    return "a file of one's own" if "sha256:" in str(value) or "/" in str(value) else str(value)
