"""What the annotation tools' own libraries make of files: run by a Python that has them, and not by the tests' own.

They pin other versions of OpenCV, pandas and Pillow than u2pl is tested with, so `make test` gives them an
environment of their own. A job comes as JSON on the standard input; its answer goes to the file that it names.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def cvat_read(folder: str, classes: list[str], **_: Any) -> dict[str, np.ndarray]:
    """Picture -> class indices, of what datumaro reads in a folder of CVAT's; 255 where nothing is."""
    import datumaro

    dataset = datumaro.Dataset.import_from(folder, "cvat")
    names = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    found = {}
    for item in dataset:
        mask = np.full(item.media.size, 255, np.uint8)
        for each in sorted(item.annotations, key=lambda annotation: annotation.z_order):
            mask[each.image > 0] = classes.index(names[each.label])
        found[item.id] = mask
    return found


def datumaro_write(
    folder: str, form: str, masks: dict[str, list[list[int]]], classes: list[str], **how: Any
) -> dict[str, np.ndarray]:
    """Let datumaro write masks, as JSON, in one of its formats."""
    import datumaro as dm

    items = [
        dm.DatasetItem(
            name,
            subset="train",
            media=dm.Image.from_numpy(np.zeros((*np.shape(mask), 3), np.uint8)),
            annotations=[
                dm.Mask(np.asarray(mask) == k, label=k, z_order=0)
                for k in range(len(classes))
                if (np.asarray(mask) == k).any()
            ],
            attributes={"frame": number},
        )
        for number, (name, mask) in enumerate(masks.items())
    ]
    colors = dm.MaskCategories({k: (k * 40, k * 3, k) for k in range(len(classes))})
    categories = {
        dm.AnnotationType.label: dm.LabelCategories.from_iterable(classes),
        dm.AnnotationType.mask: colors,
    }
    dm.Dataset.from_iterable(items, categories=categories).export(folder, form, save_media=False, **how)
    return {}


def label_studio_read(folder: str, classes: list[str], **_: Any) -> dict[str, np.ndarray]:
    """Picture -> class indices, of predictions that Label Studio's own checks find nothing wrong with."""
    from label_studio_sdk.converter.brush import decode_rle
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface((Path(folder) / "label_config.xml").read_text())
    interface.validate()
    found = {}
    for task in json.loads((Path(folder) / "tasks.json").read_text()):
        assert interface.validate_task({"data": task["data"]})
        for prediction in task["predictions"]:
            wrong = interface.validate_prediction(prediction, return_errors=True)
            assert not wrong, wrong
            for each in prediction["result"]:
                size = each["original_height"], each["original_width"]
                mask = found.setdefault(task["data"]["name"], np.full(size, 255, np.uint8))
                alpha = decode_rle(each["value"]["rle"]).reshape(*size, 4)[..., 3]
                mask[alpha > 0] = classes.index(each["value"]["brushlabels"][0])
    return found


def label_studio_write(masks: dict[str, list[list[int]]], **_: Any) -> dict[str, np.ndarray]:
    """The brush of each mask, as Label Studio's library encodes it."""
    from label_studio_sdk.converter.brush import mask2rle

    return {
        name: np.array(mask2rle(np.array(mask, np.uint8) * 255), np.uint8) for name, mask in masks.items()
    }


def labelme_read(shapes: list[dict[str, Any]], size: list[int], **_: Any) -> dict[str, np.ndarray]:
    """Number of each shape -> its pixels, as labelme draws it."""
    from labelme.utils import shape_to_mask

    return {
        str(k): shape_to_mask(tuple(size), each["points"], each["shape_type"])
        for k, each in enumerate(shapes)
    }


if __name__ == "__main__":
    job = json.load(sys.stdin)
    np.savez(job.pop("answer"), **globals()[job.pop("do")](**job))
