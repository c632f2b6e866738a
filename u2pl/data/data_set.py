"""Finds a data set by its name or its description: what it is, and in which folder its files lie."""

from dataclasses import dataclass
from pathlib import Path

from u2pl.data.catalog import built_in
from u2pl.data.description import Description, read_description, remembered
from u2pl.data.layout import BuiltIn
from u2pl.data.records import Source
from u2pl.errors import UsageError, UserError, unknown
from u2pl.project import Project
from u2pl.typed_files import read


@dataclass(frozen=True)
class DataSet:
    """A data set before it is prepared: what it is and where its files are."""

    description: Description
    root: Path
    built_in: BuiltIn | None

    @property
    def version(self) -> int | None:
        """Of the data set's own code, where it is built in: what is drawn, or how masks are converted."""
        return self.built_in.version if self.built_in else None


def find(project: Project, dataset: str, root: Path | None) -> DataSet:
    """The data set that `dataset` means, and the folder it lies in."""
    built = built_in()
    if dataset.lower().endswith((".yaml", ".yml")):
        path = Path(dataset)
        description = read_description(path)
        if description.name in built:
            raise UsageError(
                f"{path}: the name {description.name!r} is that of a built-in data set. Take another."
            )
        return DataSet(description, _folder(root or path.parent / (description.root or ".")), None)
    data = project.data(dataset)
    if dataset in built:
        description = built[dataset].description
        if built[dataset].draw:
            if root:
                raise UsageError(f"{dataset} is drawn by u2pl and has no --root. Leave it out.")
            return DataSet(description, data, built[dataset])
    elif (data / "dataset.json").is_file():
        description = remembered(data / "dataset.json")
    else:
        raise unknown("data set", dataset, {*built, *_prepared_names(project)})
    if root is None:
        fetched = data / "files" if dataset in built and built[dataset].fetch else None
        if (data / "source.json").is_file():
            root = project.root / read(Source, data / "source.json")["root"]
        if fetched and root in (None, fetched):  # which need not be there: it is fetched again
            return DataSet(description, fetched.resolve(), built[dataset])
        if root is None:
            needs = built[dataset].needs if dataset in built else ""
            raise UsageError(
                f"Where does {dataset} lie? Add --root FOLDER, the folder that holds "
                + (
                    needs
                    or f"{description.images}, {description.masks}, {description.train} and {description.val}."
                )
            )
    return DataSet(description, _folder(root), built.get(dataset))


def _prepared_names(project: Project) -> list[str]:
    return [path.parent.name for path in (project.root / "data").glob("*/dataset.json")]


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise UserError(f"There is no folder {path}. Name the data set's folder with --root.")
    return path.resolve()


def missing(project: Project, dataset: str, root: Path | None) -> str | None:
    """What has to happen before a data set can be prepared, in a sentence; None: nothing."""
    try:
        source = find(project, dataset, root)
    except UserError as error:
        return str(error)
    data = project.data(source.description.name)
    is_fetched = source.built_in and source.built_in.fetch and source.root == (data / "files").resolve()
    if not is_fetched or (data / "source.json").is_file():
        return None
    return (
        f"{dataset} is not here yet: the first `u2pl prepare` downloads it, or takes a copy of yours: "
        f"u2pl prepare --dataset {dataset} --root FOLDER"
    )
