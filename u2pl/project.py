"""Where things lie in a project folder; every path starts at its root, never at the current folder."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PureWindowsPath

from u2pl.errors import UsageError, UserError

NAME_BYTES = 200
"""Longest name, which others make longer names of: file systems take 255."""
_READABLE_BYTES = 100
"""Longest name that says all there is to say; a longer one nobody reads, and some file systems take no 150."""
_STRANGE = re.compile(r"[^\w.=+,-]")
_NAME = re.compile(r"\w[\w.=+,-]*")


def slug(text: str) -> str:
    """`text` as a file name: `/` becomes `_` (split `1/8` is folder `1_8`)."""
    return text.replace("/", "_").replace(" ", "_")


def safe_name(text: str) -> str:
    """`text` as a name that a shell, DVC and a file system take as it is: `slug`, of letters, digits and `_.=+,-`.

    A hash of `text` stands at the end where other characters had to be replaced, or the name was too long.
    """
    name, safe = slug(text), _safe(text)
    if safe == name and len(name.encode()) <= NAME_BYTES:
        return name
    digest = f"-{_digest(text)}"
    return _cut(safe, NAME_BYTES - len(digest)) + digest


def readable_name(parts: Sequence[str], end: str, meaning: str) -> str:
    """`safe_name` of `parts` and `end` with `-` between them; where that is long, a shorter one, which hides something.

    Of the shorter one the first part is cut to fit, the others are there as far as they fit, and a hash of `meaning`
    stands before the end.
    """
    whole = safe_name("-".join([*parts, end]))
    if len(whole.encode()) <= _READABLE_BYTES:
        return whole
    tail = f"-{_digest(meaning)}-{end}"
    room = _READABLE_BYTES - len(tail)
    name = _cut(_safe(parts[0]), room)
    for part in parts[1:]:
        longer = f"{name}-{_STRANGE.sub('_', slug(part))}"
        name = longer if len(longer.encode()) <= room else name
    return name + tail


def kept_name(folder: Path, name: str, former: str) -> str:
    """`name`, or the `former` one of an earlier version where that alone lies in `folder`."""
    is_former = name != former and not (folder / name).exists() and (folder / former).exists()
    return former if is_former else name


def _safe(text: str) -> str:
    safe = _STRANGE.sub("_", slug(text))
    return safe if _NAME.match(safe) else f"_{safe}"


def _digest(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]  # words need not be UTF-8


def _cut(name: str, size: int) -> str:
    return name.encode()[:size].decode(errors="ignore")


def is_name(text: str) -> bool:
    """Whether `text` is a name as `safe_name` makes them: what stands in a command line without quotes."""
    return bool(_NAME.fullmatch(text)) and len(text.encode()) <= NAME_BYTES


def check_name(option: str, text: str) -> None:
    """Check a run's name that was typed.

    Raises:
        UsageError: it is none.
    """
    if not is_name(text):
        raise UsageError(
            f"{option} takes a name of letters, digits and _ . = + , - alone, of {NAME_BYTES} bytes at most, whose "
            f"first character is a letter or digit, not {text[:NAME_BYTES]!r}. Example: {option} my-run"
        )


def is_inside(path: str) -> bool:
    """Whether a relative path cannot lead out of the folder it is relative to, on any system."""
    windows = PureWindowsPath(path)
    return bool(windows.parts) and not windows.anchor and ".." not in windows.parts


RESULTS = "results/runs"
"""`Project.results`, from the project's root, as DVC knows it."""


@dataclass(frozen=True)
class Project:
    """A folder with `params.yaml` and `dvc.yaml`; `data/`, `runs/`, `results/`, `reports/`, `auto/` grow inside it."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> "Project":
        """The project that `start` (default: the current folder) lies in, or the one `U2PL_ROOT` names.

        Raises:
            UserError: no folder from `start` upwards holds a params.yaml beside a dvc.yaml, or the current one is gone.
        """
        named = os.environ.get("U2PL_ROOT")
        try:
            start = Path(named) if named else (start or Path.cwd())
            here = start.resolve()
        except FileNotFoundError:
            raise UserError("The current folder is gone. Change to one that is there: cd FOLDER") from None
        for folder in (here, *here.parents):
            if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
                return cls(folder)
        raise UserError(
            f"No u2pl project at {start} or above it: a project holds params.yaml and dvc.yaml. "
            "Make one here: u2pl init. Or change to one, or name it in U2PL_ROOT."
        )

    def relative(self, path: Path) -> str:
        """A path as settings write it: below the project from its root, elsewhere absolute."""
        path = path.resolve()
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    @property
    def params(self) -> Path:
        """Every hyper-parameter."""
        return self.root / "params.yaml"

    @property
    def pipelines(self) -> Path:
        """Tables, plans and the active plan."""
        return self.root / "pipelines"

    @property
    def active_plan(self) -> Path:
        """The generated list of stages that `dvc repro` runs."""
        return self.pipelines / "plan.yaml"

    @property
    def runs(self) -> Path:
        """Work folders, one a run."""
        return self.root / "runs"

    @property
    def results(self) -> Path:
        """What tables are made of: a folder a run of a plan, called like its stage."""
        return self.root / RESULTS

    @property
    def auto(self) -> Path:
        """What `u2pl auto` makes of folders: a data set, a state and an answer each."""
        return self.root / "auto"

    def data(self, dataset: str) -> Path:
        """What `prepare` wrote for a data set."""
        return self.root / "data" / slug(dataset)

    def split(self, dataset: str, split: str) -> Path:
        """The lists and the manifest of one split."""
        return self.data(dataset) / "splits" / slug(split)
