"""Which of the encoder's stages tells unusual pictures: kNN distances of pooled features, by stage and kind of picture.

    python benchmarks/unusual.py PROJECT RUN FOLDER...      # FOLDERs with pictures of other kinds

Reference: the labelled images; threshold: every second of the first hundred validation images; `usual`: the others.
Each cell has the share of pictures above the threshold, and the mean share of usual ones that lie lower.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from u2pl.data.pictures import SUFFIXES, read_image
from u2pl.data.prepared import open_split
from u2pl.exchange.model import Model
from u2pl.models.backbone import Stages
from u2pl.project import Project
from u2pl.runs.records import read_run
from u2pl.trust import novelty

OF_KIND = 15
STAGES = ("low", "middle", "high")


def features(model: Model, pictures: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Of each stage the mean of its map, a row a picture."""
    found: dict[str, list[np.ndarray]] = {stage: [] for stage in STAGES}

    def keep(module: torch.nn.Module, given: object, stages: Stages) -> None:
        for stage in STAGES:
            found[stage].append(getattr(stages, stage)[0].float().mean(dim=(1, 2)).numpy())

    handle = model.network.backbone.register_forward_hook(keep)
    for picture in pictures:
        model.logits([picture])
    handle.remove()
    return {stage: np.stack(rows) for stage, rows in found.items()}


def pictures_in(folder: Path, size: tuple[int, int]) -> list[np.ndarray]:
    """Some of a folder's pictures, as large as the data set's own."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    chosen = files[:: max(1, len(files) // OF_KIND)][:OF_KIND]
    return [np.array(Image.fromarray(read_image(path)).resize(size)) for path in chosen]


def main(root: str, name: str, *folders: str) -> None:
    """Print the table."""
    project = Project(Path(root))
    run, model = read_run(project.runs / name), Model.of_run(project, name).to("cpu")
    split, rng = open_split(project, run["dataset"], run["split"]), np.random.default_rng(0)
    held_out = [split.image(image) for image in split.val[:100]]
    height, width = held_out[0].shape[:2]
    own = held_out[1 : 2 * OF_KIND : 2]
    kinds = {
        "/".join(Path(folder).parts[-2:]): pictures_in(Path(folder), (width, height)) for folder in folders
    }
    kinds["noise"] = [rng.integers(0, 256, (height, width, 3)).astype(np.uint8) for _ in range(5)]
    kinds["turned by 90 degrees"] = [np.ascontiguousarray(np.rot90(picture)) for picture in own]
    kinds["turned by 45 degrees"] = [np.array(Image.fromarray(picture).rotate(45)) for picture in own]
    kinds["negative"] = [255 - picture for picture in own]
    labeled = features(model, [split.image(image) for image in split.labeled])
    chosen, usual = features(model, held_out[::2]), features(model, held_out[1::2])
    others = {kind: features(model, pictures) for kind, pictures in kinds.items()}
    for stage in STAGES:
        known = novelty.fit(labeled[stage], chosen[stage])
        assert known is not None
        base = known.scores(usual[stage])
        print(f"{stage}: usual {(base > 1).mean():.2f}")
        for kind, rows in others.items():
            scores = known.scores(rows[stage])
            lower = np.mean([(base < score).mean() for score in scores])
            print(f"  {kind}: {(scores > 1).mean():.2f} above, {lower:.2f} of usual ones lower")


if __name__ == "__main__":
    main(*sys.argv[1:])
