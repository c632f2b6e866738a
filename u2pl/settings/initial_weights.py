"""What a network starts from, as a run records it: a file of weights by its content. Knows no torch."""

from pathlib import Path
from typing import Any

from u2pl import files
from u2pl.errors import UserError
from u2pl.settings.recipe import WORDS_FOR_WEIGHTS, Recipe


def recorded(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a run records it: a file of weights by its content, wherever it lies.

    Raises:
        UserError: the file cannot be read.
    """
    facts = recipe.recorded()
    if recipe.weights in WORDS_FOR_WEIGHTS:
        return facts
    return facts | {"weights": f"sha256:{sha256_of(Path(recipe.weights))}"}


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise IsADirectoryError(0, "it is no file")
        return files.sha256_of(path)
    except OSError as error:
        raise UserError(
            f"The weights {path} cannot be read ({error.strerror}). --set weights= takes none, imagenet, or a file; "
            "a relative one counts from the project's folder."
        ) from None
