"""Policy: who may import whom, what an installation brings, what every command and module must have."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from command_lines import every_command, parse
from tracked import tracked
from typer.main import get_command
from u2pl_cli.app import app

ROOT = Path(__file__).parents[1]
MODULES = sorted([*(ROOT / "u2pl").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])
GROUND = {"errors", "escaping", "files", "project", "typed_files", "settings", "processes", "interrupts"}
"""Modules beside the folders, in which whatever a folder needs of the ground is looked for."""
ALLOWED = {
    "errors": set(),
    "escaping": set(),
    "processes": set(),
    "interrupts": set(),
    "files": {"errors", "escaping"},
    "project": {"errors"},
    "typed_files": {"errors", "files", "project"},
    "settings": {"errors", "files", "project"},
    "losses": set(),
    "models": {"settings", "errors", "files"},
    "data": GROUND - {"processes", "interrupts"},
    "annotations": {"data", *GROUND},
    "batches": {"models.colors", "data", *GROUND},
    "steps": {"losses", "models", "processes"},
    "methods": {"steps", "batches", "losses", "models", *GROUND},
    "inference": {"batches", "data", "models", *GROUND},
    "runs": {"inference", "batches", "data", "models", *GROUND},
    "exchange": {"runs", "inference", "methods", "models", "batches", "data", *GROUND},
    "trust": {"exchange", "runs", "inference", "models", "batches", "data", *GROUND},
    "labeling": {
        "annotations",
        "trust",
        "exchange",
        "runs",
        "inference",
        "models",
        "batches",
        "data",
        *GROUND,
    },
    "tracking": {
        "exchange.model_file",
        "exchange.served",
        "runs.records",
        "runs.origin",
        "data.records",
        *GROUND,
    },
    "training": {"tracking", "runs", "inference", "methods", "steps", "models", "batches", "data", *GROUND},
    "evidence": {"runs", "inference", "losses", "models", "batches", "data", *GROUND},
    "pipeline": {"runs", "data.splits", "data.records", *GROUND},
    "reporting": {"pipeline", "tracking.addresses", "runs", *GROUND},
    "page": {"reporting", "pipeline", "runs", "data", *GROUND},
    "auto": {
        *("page", "reporting", "pipeline", "training", "labeling", "trust", "annotations", "exchange"),
        *("runs", "methods", "data", *GROUND),
    },
}
"""Room of u2pl, a module or a folder -> what it may import beside itself. Every room may use those above it alone."""

Import = tuple[str, bool]
"""A module's full name, and whether it is imported when the file is, and not inside a function."""


def imports(path: Path) -> Iterator[Import]:
    """What a file imports; `from u2pl.data import splits` is `u2pl.data.splits`. Types alone do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) not in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((f"{node.module}.{alias.name}", id(node) not in inside) for alias in node.names)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize(
    "path", [p for p in MODULES if name_of(p) != "u2pl" and p.parts[-2] != "cli"], ids=name_of
)
def test_imports_run_downwards_only(path: Path):
    part = name_of(path).split(".")[1]
    ours = [name.removeprefix("u2pl.") for name, _ in imports(path) if name.startswith("u2pl.")]
    wrong = [
        name
        for name in ours
        if name.split(".")[0] != part
        and not any(name == a or name.startswith(a + ".") for a in ALLOWED[part])
    ]
    assert not wrong


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_library_does_not_know_its_command_line_and_the_command_line_loads_nothing_heavy(path: Path):
    heavy = {"torch", "torchvision", "mlflow", "pandas", "matplotlib", "scipy", "sklearn", "dvc"}
    for name, at_once in imports(path):
        top = name.split(".")[0]
        if path.is_relative_to(ROOT / "cli"):
            assert not (at_once and top in heavy), name
        else:
            assert top not in {"typer", "click", "dvc", "u2pl_cli", "cli"}, name
        assert not (top == "mlflow" and (at_once or not name_of(path).startswith("u2pl.tracking."))), name


@pytest.mark.parametrize("path", [p for p in MODULES if "cli" in p.parts], ids=name_of)
def test_what_commands_show_goes_through_the_module_that_makes_names_plain_text(path: Path):
    calls = [
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    direct = {"print", "typer.echo", "typer.secho", "click.echo", "Console", "TextColumn"} & set(calls)
    assert not direct or path.name == "terminal.py", "say, console and column of cli/terminal.py escape names"


def test_reporting_knows_no_torch():
    for path in (ROOT / "u2pl" / "reporting").rglob("*.py"):
        assert not {name.split(".")[0] for name, _ in imports(path)} & {"torch", "torchvision"}


@pytest.mark.parametrize(
    "path", [p for p in MODULES if "methods" not in p.relative_to(ROOT).parts], ids=name_of
)
def test_nothing_but_methods_knows_a_method_by_name(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert not [
        text
        for text in compared
        if re.search(r"['\"](suponly|mt|cutmix|u2pl|cps|ael|u2pl-ael|cct|gct|pseudoseg|pc2seg)['\"]", text)
    ]


def test_every_room_uses_rooms_above_it_alone_so_that_there_is_no_circle():
    rooms = list(ALLOWED)
    for room, used in ALLOWED.items():
        assert {name.partition(".")[0] for name in used} <= set(rooms[: rooms.index(room)]), room


def test_every_room_of_the_library_stands_in_the_table():
    parts = {p.stem if p.suffix == ".py" else p.name for p in (ROOT / "u2pl").iterdir()}
    assert parts - {"__init__", "__pycache__", "py.typed"} == set(ALLOWED)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_its_idea_in_its_first_line(path: Path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = docstring.split("\n\n")[0].replace("\n", " ")
    assert first.endswith((".", ":")), f"{path} starts with {first!r}"


# ---- the installation ------------------------------------------------------------------------------------


def test_an_installation_brings_two_top_level_packages_and_no_other(tmp_path: Path):
    brought = importlib.metadata.distribution("u2pl").read_text("top_level.txt")
    assert brought is not None
    assert brought.split() == ["u2pl", "u2pl_cli"]
    script = "import importlib.util as u; print([n for n in {} if u.find_spec(n)])".format(
        ["cli", "pipelines", "reports", "tests", "benchmarks", "docs", "u2pl", "u2pl_cli"]
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert found.stdout == "['u2pl', 'u2pl_cli']\n"


def test_every_package_is_listed_for_the_installation():
    packages = {name_of(p) for p in MODULES if p.name == "__init__.py"} - {"cli"} | {"u2pl_cli"}
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(listed) == packages


NAMES = {
    "yaml": "pyyaml",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
    "typing_extensions": "typing-extensions",
}
"""What is imported -> what is installed, where the two have different names."""


def test_every_library_that_is_imported_is_a_declared_dependency():
    """One that comes with another library may go with its next version."""
    declared = {
        re.split(r"[><=\[; ]", line)[0].lower()
        for line in importlib.metadata.requires("u2pl") or []
        if "extra ==" not in line or "extra == 'onnx'" in line.replace('"', "'")
    }
    used = {name.split(".")[0] for path in MODULES for name, _ in imports(path)}
    foreign = used - set(sys.stdlib_module_names) - {"u2pl", "u2pl_cli"}
    assert {NAMES.get(name, name).lower() for name in foreign} <= declared


USED = {
    "torch": {"u2pl.training.learner": {"backward"}, "u2pl.losses.contrastive": {"Tensor"}},
    "torchvision": {"u2pl.batches.strong_view": {"adjust_hue"}, "u2pl.models.resnet": {"ResNet"}},
    "timm": {"u2pl.models.timm_backbone": {"create_model"}},
    "safetensors": {"u2pl.models.weights": {"load_file"}, "u2pl.exchange.model_file": {"save"}},
    "typer": {"cli.app": {"Typer"}},
    "mlflow": {"u2pl.tracking.store": {"MlflowClient"}},
    "pandas": {
        "u2pl.runs.frames": {"DataFrame", "read_csv", "melt", "to_csv"},
        "u2pl.reporting.results": {"groupby"},
        "u2pl.reporting.table": {"pivot", "merge"},
        "u2pl.reporting.paired": {"count", "mean", "std"},
        "u2pl.reporting.measures": {"groupby"},
        "u2pl.page.groups": {"groupby"},
    },
    "rich": {
        "cli.terminal": {"Console"},
        "cli.progress": {"Progress"},
        "cli.plan_progress": {"Live", "Table"},
    },
    "pyyaml": {"u2pl.files": {"load"}},
    "pydantic": {"u2pl.typed_files": {"TypeAdapter"}, "u2pl.settings.base": {"BaseModel"}},
    "typing-extensions": {"u2pl.runs.records": {"TypedDict"}},
    "numpy": {"u2pl.evidence.comparison": {"bincount", "argsort"}},
    "pillow": {"u2pl.data.pictures": {"Image"}},
    "opencv-python-headless": {
        "u2pl.models.perturbations": {"findContours"},
        "u2pl.batches.transforms": {"cv2"},
    },
    "scipy": {"u2pl.reporting.paired": {"stdtr"}, "u2pl.evidence.comparison": {"binary_opening", "label"}},
    "scikit-learn": {"u2pl.evidence.features": {"TSNE", "NearestNeighbors"}},
    "matplotlib": {"u2pl.reporting.charts": {"Figure"}, "u2pl.reporting.paper_figures": {"Figure"}},
    "jinja2": {"u2pl.page.templates": {"Environment"}},
    "markupsafe": {"u2pl.page.render": {"Markup"}},
    "filelock": {"u2pl.runs.folder": {"FileLock"}},
    "pycocotools": {"u2pl.annotations.regions": {"frPyObjects", "decode"}},
    "defusedxml": {"u2pl.annotations.cvat": {"fromstring"}},
    "psutil": {"u2pl.pipeline.process_groups": {"Process"}, "u2pl.files": {"pid_exists"}},
    "onnx": {"u2pl.exchange.exporter": {"checker"}},
    "onnxruntime": {"u2pl.exchange.exporter": {"InferenceSession"}},
}
"""Library -> the modules that do with it what it is declared for -> the words by which one sees that they do."""
PROGRAMS = {"dvc": ("u2pl.pipeline.new_project", "dvc.yaml")}
"""What is run, and not imported -> the module that does so, and the file that is its."""


def test_it_is_said_of_every_declared_dependency_what_it_is_used_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["onnx"]]
    assert {re.split(r"[><=\[; ]", line)[0] for line in lines} == {*USED, *PROGRAMS}


@pytest.mark.parametrize(
    ("library", "module"), [(library, module) for library, modules in USED.items() for module in modules]
)
def test_a_declared_dependency_is_used_for_what_it_is_for(library: str, module: str):
    (path,) = (path for path in MODULES if name_of(path) == module)
    assert library in {NAMES.get(name.split(".")[0], name.split(".")[0]) for name, _ in imports(path)}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    words |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert USED[library][module] <= words


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_declared_dependency_that_is_not_imported_is_a_program_that_is_run(program: str):
    module, file = PROGRAMS[program]
    (path,) = (path for path in MODULES if name_of(path) == module)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert program in {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert (ROOT / file).is_file()


def test_results_are_aggregated_and_written_by_pandas_and_by_nothing_else():
    for path in (ROOT / "u2pl" / "reporting").rglob("*.py"):
        assert not {name.split(".")[0] for name, _ in imports(path)} & {"csv", "statistics"}, path


def test_no_file_names_a_package_index():
    addresses = ["pypi" + ".org", "pythonhosted" + ".org", "download.py" + "torch.org", "index" + "-url"]
    files = [ROOT / name for name in tracked()]
    assert len(files) > 50
    assert not [
        f"{path}: {address}"
        for path in files
        for address in addresses
        if address.encode() in path.read_bytes()
    ]


# ---- the commands ----------------------------------------------------------------------------------------


EVERY_COMMAND = [pytest.param(words, command, id=" ".join(words)) for words, command in every_command()]


@pytest.mark.parametrize(("words", "command"), EVERY_COMMAND)
def test_every_command_says_what_it_does_and_has_an_example_that_parses(words: tuple[str, ...], command):
    sentence, *rest = command.help.split("\n\n")
    assert sentence.strip().endswith(".")
    example = re.search(r"Example: (.+)$", "\n\n".join(rest), re.MULTILINE)
    assert example, f"u2pl {' '.join(words)} has no example"
    parse(example[1])


@pytest.mark.parametrize(("words", "command"), EVERY_COMMAND)
def test_every_option_and_argument_is_explained(words: tuple[str, ...], command):
    silent = [p.name for p in command.params if not getattr(p, "help", None) and p.name != "help"]
    assert not silent


def test_the_first_example_anyone_sees_parses():
    epilog = get_command(app).epilog
    for line in epilog.removeprefix("Example: ").split(" && "):
        parse(line)


def test_every_command_of_the_pipeline_parses():
    """The words before the first value that a plan fills in."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    known = {" ".join(words) for words, _ in every_command()}
    for stage in stages:
        line = stage.get("do", stage)["cmd"]
        assert line.split()[0] == "u2pl"
        assert line.split()[1] in known
        options = {
            option
            for words, c in every_command()
            if words == (line.split()[1],)
            for p in c.params
            for option in p.opts
        }
        assert set(re.findall(r"(?<= )--[a-z-]+", line)) <= options
