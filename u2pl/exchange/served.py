"""A model file behind MLflow's `pyfunc`: pictures as bytes in, class maps as bytes out. Knows no MLflow itself.

MLflow finds it by its name, which stands in every model that was logged.
"""

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from u2pl.data.inspection import BadFile
from u2pl.data.pictures import read_image
from u2pl.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from u2pl.exchange.model import Model

IMAGE = "image"
"""Column of what goes in: the bytes of a picture's file, PNG or JPEG; base64 in JSON."""
MASK, CLASSES, PIXELS = "mask", "classes", "pixels"
"""Columns of what comes out: the bytes of a grey PNG of class indices; the classes' names; predicted pixels of each."""


class Served:
    """A network as MLflow calls it."""

    def __init__(self, model: "Model"):
        self._model = model

    def predict(self, model_input: "pd.DataFrame", params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """Segment the pictures in the column `image`, each at its own size.

        Raises:
            UserError: there is no such column, or what stands in it is no picture.
        """
        import pandas as pd

        if IMAGE not in model_input:
            raise UserError(f"There is no column {IMAGE!r}. It holds the bytes of PNG or JPEG files.")
        return pd.DataFrame([self._row(number, value) for number, value in enumerate(model_input[IMAGE])])

    def _row(self, number: int, value: Any) -> dict[str, Any]:
        if not isinstance(value, (bytes, bytearray)):
            raise UserError(
                f"Picture {number} is {type(value).__name__}, not the bytes of a PNG or JPEG file (base64 in JSON)."
            )
        with tempfile.NamedTemporaryFile() as file:
            file.write(value)
            file.flush()
            try:
                pixels = read_image(Path(file.name))
            except BadFile as error:
                raise UserError(f"Picture {number} cannot be read: {error.kind}.") from None
        classes = self._model.predict(pixels).classes
        encoded = io.BytesIO()
        Image.fromarray(classes).save(encoded, format="PNG")
        counts = np.bincount(classes.ravel(), minlength=len(self._model.classes))
        return {
            MASK: encoded.getvalue(),
            CLASSES: list(self._model.classes),
            PIXELS: [int(count) for count in counts],
        }


def _load_pyfunc(path: str) -> Served:
    """MLflow's way in; `path` is the model file."""
    from u2pl.exchange.model import load

    return Served(load(Path(path)))
