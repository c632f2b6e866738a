"""Examines a finished run: how far it can be believed, and which images and masks of its data should be looked at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from u2pl.data.description import Progress
from u2pl.data.prepared import Split, open_split
from u2pl.errors import UsageError
from u2pl.exchange import model_file, trust_facts
from u2pl.exchange.model import Model
from u2pl.exchange.trust_facts import TrustFacts
from u2pl.files import sha256_of, write_csv, write_json
from u2pl.inference import scores
from u2pl.project import Project
from u2pl.runs.records import read_run
from u2pl.runs.stored_evaluation import run_path
from u2pl.trust import calibration, novelty, sheets, thresholds
from u2pl.trust.findings import LABELED, UNLABELED, VAL, DoubtfulMask, Novel, Trust
from u2pl.trust.label_quality import SURE, regions, softmin
from u2pl.trust.looked import Look, Seen, look_of, seen_by
from u2pl.trust.near_duplicates import Grey, near_duplicates, thumbnail
from u2pl.trust.novelty import Novelty

SAMPLED, OF_ONE = 2**19, 4096
"""Validation pixels that calibration is measured on, in all and of one image at most."""
SHOWN = 20
"""Masks on a contact sheet."""
COMPARED = ((VAL, LABELED), (VAL, UNLABELED), (LABELED, UNLABELED), (LABELED, LABELED))
"""Lists among which near duplicates matter, the leaks first."""


def examine(
    project: Project,
    run: str,
    *,
    out: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Trust:
    """Look at all images of a finished run's split with its network, and write down what is found.

    Beside the run go trust.json and, with the same facts, its model file NAME.u2pl; tables and contact sheets go to
    runs/NAME/check/. Nothing that a run is told by, nor its fingerprint, is touched.

    Args:
        project: where the run is.
        run: its name, or its folder.
        out: folder for tables and sheets instead of runs/NAME/check/.
        progress: told how many images are done.

    Raises:
        UserError: there is no such run, it is not finished, or its data set is not prepared here.
    """
    path = run_path(project, run)
    identity = read_run(path)
    split = open_split(project, identity["dataset"], identity["split"])
    model = Model.of_run(project, str(path))
    folder = out or path / "check"
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file. Name a folder with --out.")
    sample = _sampled(model, split, progress)
    by_other = _temperatures_of_others(sample)
    found = calibration.calibrate(*sample, by_other) if len(sample.labels) else None
    temperature = found.temperature if found else 1.0
    pixel = _pixel_threshold(sample, by_other) if found else None
    seen = _Everything(model, split, temperature, pixel.threshold if pixel else None)
    seen.look(progress)
    scored = [name for name in split.val if name in seen.mious]
    image = thresholds.image_threshold(
        [seen.looks[name].expected_miou for name in scored], [seen.mious[name] for name in scored]
    )
    labeled = _features(seen.looks, split.labeled)
    usual = novelty.fit(labeled, _features(seen.looks, split.val))
    result = Trust(
        run=identity["name"],
        folder=folder,
        classes=tuple(split.classes),
        labeled=len(split.labeled),
        unlabeled=len(split.unlabeled),
        validation=len(scored),
        calibration=found,
        image=image,
        pixel=pixel,
        novelty_threshold=usual.threshold if usual else None,
        novel=_novel(usual, seen),
        near_duplicates=tuple(near_duplicates(seen.thumbnails, COMPARED, progress)),
        masks=tuple(sorted(seen.masks, key=lambda mask: (mask.score, mask.image))),
        unreadable=tuple(seen.skipped),
    )
    _write(result, seen, usual, split, model)
    write_json(path / trust_facts.FILE, facts_of(result, usual, sha256_of(path / "weights.pt")))
    model_file.write_of_run(project, path)
    return result


class _Sample(NamedTuple):
    """Pixels of validation images, as `calibration.calibrate` takes them."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    images: NDArray[np.int64]


def _sampled(model: Model, split: Split, progress: Progress) -> _Sample:
    """Of each validation image equally many pixels that have a class, drawn by a generator that its name seeds."""
    most = min(OF_ONE, max(1, SAMPLED // max(1, len(split.val))))
    places = {name: number for number, name in enumerate(split.val)}
    files = {name: split.images[name] for name in split.val if split.has_mask(name)}
    logits, labels, images = [], [], []
    for seen in seen_by(model, files, [], "measuring confidence", progress):
        given = split.mask(seen.name).reshape(-1)
        known = np.flatnonzero(given != split.ignore_index)
        rng = np.random.default_rng(crc32(seen.name.encode()))
        chosen = np.sort(rng.choice(known, min(most, len(known)), replace=False))
        at = seen.logits.flatten(1)[:, torch.from_numpy(chosen).to(seen.logits.device)]
        logits.append(at.float().T.cpu().numpy())
        labels.append(given[chosen].astype(np.int64))
        images.append(np.full(len(chosen), places[seen.name]))
    if not logits:
        return _Sample(np.zeros((0, len(split.classes)), np.float32), *(np.zeros(0, np.int64),) * 2)
    return _Sample(np.concatenate(logits), np.concatenate(labels), np.concatenate(images))


def _temperatures_of_others(sample: _Sample) -> NDArray[np.float32]:
    """Of each pixel the temperature that fits the other half of the images; 1 where there is one image alone."""
    if len(np.unique(sample.images)) > 1:
        return calibration.crossed_temperatures(*sample)
    return np.ones(len(sample.labels), np.float32)


def _pixel_threshold(sample: _Sample, by_other: NDArray[np.float32]) -> thresholds.PixelThreshold | None:
    """Of probabilities with the temperature of the other half of the images, as they are measured."""
    confidence = calibration.confidences(sample.logits / by_other[:, None])
    right = sample.logits.argmax(axis=1) == sample.labels
    return thresholds.pixel_threshold(confidence, right, calibration.halves(sample.images))


class _Everything:
    """All images of a split, looked at once."""

    def __init__(self, model: Model, split: Split, temperature: float, threshold: float | None):
        self.model, self.split = model, split
        self.temperature, self.threshold = temperature, threshold
        labeled = set(split.labeled)
        self.lists = {
            LABELED: split.labeled,
            UNLABELED: [name for name in split.unlabeled if name not in labeled],
            VAL: split.val,
        }
        self.looks: dict[str, Look] = {}
        self.thumbnails: dict[str, dict[str, Grey]] = {which: {} for which in self.lists}
        self.masks: list[DoubtfulMask] = []
        self.mious: dict[str, float] = {}
        """Of validation images, percent."""
        self.skipped: list[tuple[str, str]] = []

    def look(self, progress: Progress) -> None:
        """At all of them."""
        where = {name: which for which, names in self.lists.items() for name in names}
        files = {name: self.split.images[name] for name in where}
        for seen in seen_by(self.model, files, self.skipped, "looking at images", progress):
            which = where[seen.name]
            look = look_of(seen.name, seen.logits, seen.features, self.temperature, self.threshold)
            self.looks[seen.name] = look
            self.thumbnails[which][seen.name] = thumbnail(seen.picture)
            if which != UNLABELED and self.split.has_mask(seen.name):
                self._judge(seen, which)

    def _judge(self, seen: Seen, which: str) -> None:
        """The mask of an image, by what was predicted, and the prediction, by the mask."""
        given = self.split.mask(seen.name)
        ignore, classes = self.split.ignore_index, len(self.split.classes)
        known = given != ignore
        if not known.any():
            return
        probabilities = (seen.logits.float() / self.temperature).softmax(dim=0)
        confidence, predicted = (each.cpu() for each in probabilities.max(dim=0))
        label = torch.from_numpy(given.astype(np.int64))
        of_given = probabilities.cpu().gather(0, label.clamp(max=classes - 1)[None])[0].numpy()
        if which == VAL:
            counts = scores.confusion(predicted, label, classes, ignore)
            self.mious[seen.name] = float(scores.iou(counts).nanmean())
        sure = (predicted.numpy() != given) & (confidence.numpy() >= SURE) & known
        self.masks.append(
            DoubtfulMask(
                seen.name,
                which,
                softmin(of_given[known]),
                float(sure.sum() / known.sum()),
                tuple(regions(predicted.numpy(), confidence.numpy(), given, ignore)),
            )
        )


def _features(looks: Mapping[str, Look], names: list[str]) -> NDArray[np.float32]:
    found = [looks[name].middle for name in names if name in looks]
    return np.stack(found) if found else np.zeros((0, 1), np.float32)


def _novel(usual: Novelty | None, seen: _Everything) -> tuple[Novel, ...]:
    names = [name for name in seen.lists[UNLABELED] if name in seen.looks]
    if usual is None or not names:
        return ()
    by_name = zip(names, usual.scores(_features(seen.looks, names)), strict=True)
    found = [Novel(name, UNLABELED, float(score)) for name, score in by_name if score > 1]
    return tuple(sorted(found, key=lambda each: (-each.novelty, each.image)))


def facts_of(trust: Trust, usual: Novelty | None, weights: str) -> TrustFacts:
    """What goes with the model file.

    Args:
        trust: what was found.
        usual: what distances of features are usual.
        weights: SHA-256 of the run's weights.
    """
    found = trust.calibration
    return {
        "format": 1,
        "weights": weights,
        "temperature": found.temperature if found else 1.0,
        "ece_before": found.ece_before if found else None,
        "ece_after": found.ece_after if found else None,
        "validation_images": trust.validation,
        "image": trust.image and trust.image._asdict(),  # type: ignore[typeddict-item]
        "pixel": trust.pixel and trust.pixel._asdict(),  # type: ignore[typeddict-item]
        "novelty": usual
        and {
            "count": len(usual.reference),
            "size": usual.reference.shape[1],
            "neighbour": usual.neighbour,
            "threshold": usual.threshold,
            "features": trust_facts.packed(usual.reference),
        },
    }


def _write(trust: Trust, seen: _Everything, usual: Novelty | None, split: Split, model: Model) -> None:
    folder, classes = trust.folder, trust.classes
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(
        folder / "near_duplicates.csv",
        [
            ("image", "list", "other", "other_list", "similarity", "done_to_other"),
            *(
                (p.image, p.lists[0], p.other, p.lists[1], round(p.similarity, 4), p.turned)
                for p in trust.near_duplicates
            ),
        ],
    )
    write_csv(
        folder / "masks.csv",
        [
            ("image", "list", "score", "disagreeing"),
            *((m.image, m.list, round(m.score, 4), round(m.disagreeing, 4)) for m in trust.masks),
        ],
    )
    by_size = sorted(
        ((mask, region) for mask in trust.masks for region in mask.regions),
        key=lambda pair: -pair[1].pixels * pair[1].confidence,
    )
    write_csv(
        folder / "regions.csv",
        [
            ("image", "list", "given", "predicted", "pixels", "confidence", "left", "top", "width", "height"),
            *(
                (
                    m.image,
                    m.list,
                    classes[r.given],
                    classes[r.predicted],
                    r.pixels,
                    round(r.confidence, 4),
                    *r.box,
                )
                for m, r in by_size
            ),
        ],
    )
    write_csv(
        folder / "novel.csv",
        [("image", "list", "novelty"), *((n.image, n.list, round(n.novelty, 4)) for n in trust.novel)],
    )
    bins = trust.calibration.bins if trust.calibration else []
    write_csv(folder / "reliability.csv", [calibration.Bin._fields, *bins])
    write_csv(
        folder / "images.csv",
        [
            ("image", "expected_miou", "miou", "confidence"),
            *(
                (
                    n,
                    round(seen.looks[n].expected_miou, 2),
                    round(seen.mious[n], 2),
                    round(seen.looks[n].confidence, 4),
                )
                for n in split.val
                if n in seen.mious
            ),
        ],
    )
    write_json(folder / "check.json", as_json(trust))
    sheets.masks(folder / "masks.png", trust.masks[:SHOWN], split, model)


def as_json(trust: Trust) -> dict[str, Any]:
    """All that was found, of masks and regions the first `SHOWN`: the tables have the rest."""
    found = trust.calibration
    return {
        "run": trust.run,
        "folder": str(trust.folder),
        "images": {LABELED: trust.labeled, UNLABELED: trust.unlabeled, VAL: trust.validation},
        "calibration": found and {**found._asdict(), "bins": [each._asdict() for each in found.bins]},
        "image_threshold": trust.image and {**trust.image._asdict(), "telling": trust.image.is_telling},
        "pixel_threshold": trust.pixel and trust.pixel._asdict(),
        "novelty_threshold": trust.novelty_threshold,
        "novel": [each._asdict() for each in trust.novel],
        "near_duplicates": [each._asdict() for each in trust.near_duplicates],
        "masks": [
            {
                **mask._asdict(),
                "regions": [
                    {
                        **region._asdict(),
                        "given": trust.classes[region.given],
                        "predicted": trust.classes[region.predicted],
                    }
                    for region in mask.regions
                ],
            }
            for mask in trust.masks[:SHOWN]
        ],
        "unreadable": [{"image": name, "reason": reason} for name, reason in trust.unreadable],
        "words": [
            trust.calibration_in_words(),
            trust.threshold_in_words(),
            trust.pixel_in_words(),
            trust.leaks_in_words(),
        ],
    }
