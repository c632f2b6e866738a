"""Hyper-parameters: their types, ranges and meaning, in groups that methods share, and those of each method.

Knows no torch: whatever asks for the settings of a method does so without its two seconds.
"""

import importlib.util
import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from u2pl.settings.base import Range, Settings, homes

# ---- groups ----------------------------------------------------------------------------------------------


class WarmStartSettings(Settings, section="teacher"):
    """When the labels of a network begin to teach."""

    warm_start_epochs: int = Field(ge=0)
    """Epochs of supervised training before the teacher's labels are used (App. A); in CPS before the students learn
    from each other."""


class TeacherSettings(WarmStartSettings, section="teacher"):
    """Hyper-parameters of the teacher."""

    ema_decay: float = Field(ge=0, lt=1)
    teacher_mode: Literal["eval", "train"]
    """Of the teacher's pass over the images that the student sees."""
    teacher_statistics: Literal["average", "passes"]
    """Batch-norm statistics of the teacher: averaged like its weights, or estimated in its passes."""
    warm_teacher: Literal["copy", "average", "own"]
    """In the warm start the teacher is a copy of the student, its average from the first step of training on, or has
    weights of its own that nobody updates."""
    first_epoch: Literal["average", "share"]
    """In the first epoch after the warm start the teacher is an average, or the student itself."""


class PartitionSettings(Settings, section="partition"):
    """Hyper-parameters of the partition into reliable and unreliable pixels."""

    alpha0: float = Field(ge=0, le=1)
    """Share of unreliable pixels in the first epoch (Eq. 7); at 0 only those of highest entropy are left out."""
    dpa: bool
    """Dynamic partition adjustment: alpha_t falls linearly to 0 (Eq. 7); false keeps alpha0."""


class UnsupervisedSettings(Settings, section="unsupervised"):
    """Hyper-parameters of the loss on pseudo-labels that are filtered by entropy."""

    eta: float = Field(ge=0)
    """Base weight of the unsupervised loss (Eq. 8)."""
    entropy_pass: Literal["plain", "mixed"]
    """Which pass gives the entropy: the one that gives the labels, in evaluation mode, or the one over the student's
    images."""


class MixingSettings(Settings, section="mixing"):
    """Hyper-parameters of CutMix's augmentation."""

    cutmix_probability: float = Field(ge=0, le=1)
    """Probability that a batch is mixed."""


class ContrastSettings(PartitionSettings, section="contrast"):
    """Hyper-parameters of the loss (Table A1), components of Table 6, and choices of the released code."""

    lambda_c: float = Field(ge=0)
    """Weight of the contrastive loss (Eq. 1); at 0 there is none, and nothing of what follows matters."""
    contrast: Literal["L_c", "L_b"]
    """InfoNCE (Eq. 4) or the binary loss (Eq. A1)."""
    M: int = Field(ge=1)
    """Anchors of a class."""
    N: int = Field(ge=1)
    """Negatives of an anchor."""
    tau: float = Field(gt=0)
    """Temperature (Eq. 4)."""
    delta_p: float = Field(ge=0, lt=1)
    """Teacher probability of its class that an anchor must exceed (Eqs. 9, 10)."""
    r_l: int = Field(ge=0)
    """Low rank threshold (Eqs. 14, 15)."""
    r_h: int = Field(ge=1)
    """High rank threshold (Eq. 15)."""
    prt: bool
    """Probability rank threshold; without it r_l is 1 and r_h the number of classes (Table 6)."""
    negatives: Literal["unreliable", "reliable", "all"]
    """Unlabelled pixels that become negatives (Table 4): the alpha_t of highest entropy, of lowest, or all."""
    memory_bank: bool
    """Q_c; without it negatives are drawn from the pixels of the step (Table 6)."""
    queue: int = Field(ge=1)
    """Negatives kept of a class. Memory: queue x representation x 4 bytes x classes."""
    queue_background: int = Field(ge=1)
    """The same for the class that `large_queue` names."""
    large_queue: Literal["background", "class0"]
    """Which class `queue_background` is for: class 0 where it is a background, or whatever it is."""
    pairing: Literal["class", "position"]
    """Whose negatives the anchors of class c meet: its own, or those of the c-th class present."""
    labeled_negatives: bool
    """Whether labelled images give negatives (Eq. 14)."""
    negative_label: Literal["any", "same"]
    """Which unlabelled pixels may be negatives of c: all that Eq. 15 names, or of those the ones pseudo-labelled c."""
    at_threshold: bool
    """Whether a pixel whose entropy is exactly the threshold is a negative."""
    anchors: Literal["reliable", "lowest"]
    """Unlabelled pixels that may be anchors: all reliable ones (Eq. 10), or the alpha_t of lowest entropy."""
    center: Literal["anchors", "pixels"]
    """Whose mean is the positive: of a class's anchors (Eq. 12), or also of those pixels that delta_p leaves out."""
    normalizer: Literal["all", "present"]
    """Classes that the sum of Eq. 4 is divided by; with `present` a single class gives 0."""
    label_points: Literal["aligned", "floor"]
    """Which pixel's label and entropy a point of the heads takes: the one where it lies, or a neighbour up and left."""


class EqualizationSettings(Settings, section="equalization"):
    """Hyper-parameters of adaptive equalization learning: its augmentation, sampling and weights."""

    confidence_momentum: float = Field(ge=0, lt=1)
    """Of the confidence bank."""
    confidence_start: Literal["zero", "random"]
    """What the bank holds before the first step; `random` is uniform from 0 to 1."""
    confidence_mean: Literal["image", "pixel"]
    """Over what a class's probability is averaged: images that have it (Eq. 4), or all its pixels."""
    absent_class: Literal["keep", "zero"]
    """A class that no image of a batch has keeps its confidence, or is counted as having none."""
    copy_paste: bool
    """Adaptive copy-paste: pixels of badly learned classes from other labelled images."""
    paste_share: float = Field(ge=0, le=1)
    """Of the labelled images, how many get some."""
    paste_classes: int = Field(ge=1)
    """Draws of a class for each."""
    paste_scale: Range
    """Least and greatest random scale of what is pasted."""
    paste_power: float = Field(gt=0)
    """Exponent of 1 - confidence in that draw (1: Eq. 9)."""
    paste_except: list[int]
    """Classes that are never pasted, besides a background."""
    adaptive_cutmix: bool
    """Adaptive CutMix: which images are mixed and where follows the classes; without, both are random."""
    region_area: float = Field(gt=0, lt=1)
    """Share of an image that a piece of a class must exceed to be cut out."""
    cover_area: float = Field(gt=0, lt=1)
    """Share of an image that a class must cover in the teacher's prediction for the image to be chosen by it."""
    equalization: bool
    """Adaptive equalization sampling: of well learned classes fewer pixels count."""
    beta: float = Field(ge=0)
    """Exponent of its rates."""
    reweighting: bool
    """Dynamic re-weighting: a pixel counts as the teacher is sure of it."""
    gamma: float = Field(ge=0)
    """Exponent of that."""
    threshold: float = Field(ge=0, lt=1)
    """Probability of its class that a pseudo-label needs."""
    weights_sum: Literal["image", "batch"]
    """Over what the pixels' weights sum to 1 (Eq. 12: each image)."""
    labeled_consistency: bool
    """Whether labelled images have a consistency loss too, beside that of their labels."""
    alpha_w: float = Field(ge=0)
    """Weight of the consistency loss."""
    label_mode: Literal["eval", "train"]
    """Of the teacher's pass over the unlabelled images, which gives their labels."""


class StrongViewSettings(Settings, section="strong"):
    """Hyper-parameters of the strong view of unlabelled images: colours, and a square that is cut out."""

    jitter_probability: float = Field(ge=0, le=1)
    """Probability that the colours of an image are distorted."""
    jitter_brightness: float = Field(ge=0, le=1)
    """The factor is uniform from 1 less this to 1 and this; so are the next two."""
    jitter_contrast: float = Field(ge=0, le=1)
    jitter_saturation: float = Field(ge=0, le=1)
    jitter_hue: float = Field(ge=0, le=0.5)
    """Largest shift of the hue, in turns of the colour circle."""
    grayscale_probability: float = Field(ge=0, le=1)
    blur_probability: float = Field(ge=0, le=1)
    blur_sigma: Range
    """Least and greatest standard deviation of the blur, pixels."""
    cutout: float = Field(ge=0, le=1)
    """Half of the side of the square that is cut out, as a share of the crop; 0: none is."""


# ---- methods ---------------------------------------------------------------------------------------------


class SupOnlySettings(Settings):
    """Hyper-parameters of SupOnly."""

    epoch: Literal["labeled", "unlabeled"]
    """What an epoch is a pass over; `unlabeled` gives as many steps as the semi-supervised methods have."""


class MeanTeacherSettings(TeacherSettings, PartitionSettings, UnsupervisedSettings):
    """Hyper-parameters of MT."""


class CutMixSettings(MeanTeacherSettings, MixingSettings):
    """Hyper-parameters of CutMix."""


class U2PLSettings(ContrastSettings, CutMixSettings):
    """Hyper-parameters of U²PL."""


class CPSSettings(WarmStartSettings):
    """Hyper-parameters of CPS."""

    cutmix: bool
    """Whether the students see mixed unlabelled images, and learn from each other on these alone; otherwise plain
    ones, and on the labelled images too."""
    lambda_mixed: float = Field(ge=0)
    """Weight of the cross pseudo supervision loss with CutMix."""
    lambda_plain: float = Field(ge=0)
    """Its weight without."""


Perturbation = Literal["f_noise", "f_drop", "dropout", "g_cutout", "con_msk", "obj_msk", "i_vat"]
"""Of features; see `u2pl.models.perturbations`."""


class CCTSettings(Settings):
    """Hyper-parameters of CCT."""

    decoders: dict[Perturbation, Annotated[int, Field(ge=0)]]
    """How many decoders see features with each perturbation."""
    context: list[int]
    """Classes that are no objects where perturbations follow objects."""
    weight: float = Field(ge=0)
    """Of the consistency loss once it has risen."""
    ramp: float = Field(ge=0, le=1)
    """Share of the run in which it rises."""

    @field_validator("decoders")
    @classmethod
    def _are_some(cls, decoders: dict[Perturbation, int]) -> dict[Perturbation, int]:
        if not any(decoders.values()):
            raise ValueError("at least one decoder is needed, such as {f_noise: 1}")
        return decoders


class GCTSettings(Settings):
    """Hyper-parameters of GCT."""

    lambda_dc: float = Field(ge=0)
    """Weight of the dynamic consistency loss once it has risen."""
    ramp_epochs: float = Field(ge=0)
    """Epochs in which it rises."""
    lambda_fc: float = Field(ge=0)
    """Weight of the flaw correction loss."""
    lambda_d: float = Field(ge=0)
    """Weight of the detector's loss."""
    xi: float = Field(gt=0, lt=1)
    """A flaw above it is complete: where both students have one, each keeps its own prediction."""
    flaw_map: Literal["raw", "clamped"]
    """The detector's map in its loss: as it is, or without negative values, which get the same gradient."""
    detector_lr: float = Field(gt=0)
    """Learning rate of the detector."""


class AELSettings(TeacherSettings, EqualizationSettings):
    """Hyper-parameters of AEL."""


class U2PLAELSettings(ContrastSettings, AELSettings):
    """Hyper-parameters of U²PL on AEL."""

    entropy_filter: Literal["highest", "lowest"]
    """Which alpha_t of the unlabelled pixels get no pseudo-label: those of highest entropy (Eq. 6), or of lowest; then
    these take no part in the contrastive loss either."""
    contrast_from: int = Field(ge=0)
    """First epoch that has a contrastive loss."""
    contrast_dpa: bool
    """Whether anchors and negatives follow alpha_t; otherwise alpha0."""


class PseudoSegSettings(StrongViewSettings):
    """Hyper-parameters of PseudoSeg."""

    key_channels: int = Field(ge=1)
    """Of the queries and keys by which the activation maps are refined."""
    temperature: float = Field(gt=0)
    """Of the fused labels; below 1 they are sharpened."""
    lambda_consistency: float = Field(ge=0)
    """Weight of the loss on them."""


class PC2SegSettings(StrongViewSettings):
    """Hyper-parameters of PC²Seg: a reconstruction, not verified against the authors' code."""

    remark: ClassVar[str] = (
        "PC²Seg is a reconstruction, not verified against the authors' code, which was never published."
    )

    projection: int = Field(ge=1)
    """Channels of the features that are compared."""
    anchors_per_image: int = Field(ge=1)
    """Points of each unlabelled image's strong view that are compared."""
    negatives_per_anchor: int = Field(ge=1)
    """Drawn with replacement."""
    pool: int = Field(ge=1)
    """Points of all images of a batch from which negatives are drawn, at most."""
    negatives: Literal["debiased_other", "other_image", "uniform", "uncertainty", "debiased"]
    """What is drawn: points of other images, likelier the less likely they are of the anchor's class; points of other
    images; any; any, likelier the surer their labels are; any, by class as the first."""
    tau: float = Field(gt=0)
    """Temperature of the contrastive loss."""
    lambda_cy: float = Field(ge=0)
    """Weight of the consistency loss, after the ramp."""
    lambda_ct: float = Field(ge=0)
    """Weight of the contrastive loss, after the ramp."""
    ramp: float = Field(ge=0, le=1)
    """Share of the run in which both weights rise; 0: none."""


_registry: dict[str, type[Settings]] = {
    "suponly": SupOnlySettings,
    "mt": MeanTeacherSettings,
    "cutmix": CutMixSettings,
    "u2pl": U2PLSettings,
    "cps": CPSSettings,
    "cct": CCTSettings,
    "gct": GCTSettings,
    "ael": AELSettings,
    "u2pl-ael": U2PLAELSettings,
    "pseudoseg": PseudoSegSettings,
    "pc2seg": PC2SegSettings,
}
"""Method -> its settings. One that is not told of here adds itself when it is imported: `register`."""


def register(method: str, cls: type[Settings]) -> None:
    """Make the settings of a method known.

    Raises:
        ValueError: it has others already, or one name is that of a method and of a group.
    """
    if _registry.setdefault(method, cls) is not cls:
        raise ValueError(f"the settings of {method!r} are {_registry[method].__name__}, not {cls.__name__}")
    both = _registry.keys() & {home for settings in _registry.values() for home in homes(settings).values()}
    if both:
        raise ValueError(f"{min(both)!r} is the name of a method and of a group of settings")


def import_methods() -> None:
    """Import every method there is, so that all are registered.

    By name and at run time, since methods stand on settings and bring torch; whoever asks for what is told of in this
    file need not wait for it.
    """
    importlib.import_module("u2pl.methods")


def find(method: str) -> type[Settings] | None:
    """The settings of a method; None where there is no such method."""
    if method not in _registry:
        import_methods()
    return _registry.get(method)


def names() -> set[str]:
    """The methods known so far; see `import_methods`."""
    return {*_registry}


def declared() -> set[str]:
    """The methods that have a file, as their decorators say; none of them is imported, which would bring torch."""
    package = importlib.util.find_spec("u2pl.methods")
    folders = (package.submodule_search_locations if package else None) or []
    files = (path for folder in folders for path in Path(folder).glob("*.py"))
    found = (
        re.findall(r"^@method\([\"']([\w-]+)[\"']\)", path.read_text(encoding="utf-8"), re.MULTILINE)
        for path in files
    )
    return {name for names in found for name in names}


def groups() -> set[str]:
    """The sections that methods known so far share."""
    return {home for cls in _registry.values() for home in homes(cls).values() if home}


def settings_of(section: str) -> set[str]:
    """What may stand in a section: all settings of a method, or those of a group; none where it is not known so far."""
    if section in _registry:
        return {*_registry[section].model_fields}
    return {key for cls in _registry.values() for key, home in homes(cls).items() if home == section}
