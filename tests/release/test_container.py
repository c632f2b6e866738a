"""The Dockerfile holds together: no engine builds it here, so what it says is looked at, and tried without one."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from release.packed import Packed
from test_architecture import parse
from tiny import REPOSITORY
from tracked import tracked

PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PROJECT, TOOLS = PYPROJECT["project"], PYPROJECT["tool"]


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile and its words, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = filter(None, text.replace("\\\n", "").splitlines())
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def all_of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def context() -> list[str]:
    """The files that .dockerignore lets through, which takes all away and gives some back."""
    first, *lines = [
        line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if not line.startswith("#")
    ]
    assert first == "*" and lines.pop() == "**/__pycache__"
    assert all(re.fullmatch(r"![\w.]+", line) for line in lines)
    given = {line[1:] for line in lines}
    assert all((REPOSITORY / name).exists() for name in given)
    return [name for name in tracked() if name.partition("/")[0] in given]


def test_what_is_copied_is_there():
    for words in map(str.split, all_of("COPY")):
        if not words[0].startswith("--from="):
            assert all(name == "." or name in context() for name in words[:-1]), words
    stages = {rest.partition(" AS ")[2] for rest in all_of("FROM")}
    assert {match[1] for rest in all_of("COPY") if (match := re.match(r"--from=(\S+)", rest))} <= stages


def test_nothing_of_a_project_goes_to_the_one_who_builds():
    tops = {name.partition("/")[0] for name in context()}
    assert not tops & {
        ".git",
        ".venv",
        "data",
        "runs",
        "models",
        "results",
        "reports",
        "tests",
        "docs",
        "mlartifacts",
    }


def test_dependencies_come_before_the_code():
    """So that a changed line of the code leaves their layer as it was."""
    after = instructions()[[name for name, _ in instructions()].index("FROM", 2) :]
    order = [name + " " + rest for name, rest in after]
    (needed,) = (k for k, line in enumerate(order) if "--requirement" in line)
    (code,) = (k for k, line in enumerate(order) if line.startswith("COPY --from=wheel"))
    assert needed < code
    copied = [word for line in order[:needed] if line.startswith("COPY") for word in line.split()[1:-1]]
    assert copied == ["pyproject.toml", "constraints.txt"]


def test_it_installs_what_the_package_declares(tmp_path: Path):
    (text,) = (rest for rest in all_of("RUN") if "tomllib" in rest)
    (script,) = re.findall(r'python3 -c "(.+?)"', text)
    (tmp_path / "pyproject.toml").write_bytes((REPOSITORY / "pyproject.toml").read_bytes())
    script = script.replace("/opt/u2pl", str(tmp_path))
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["lite"]]


def test_its_python_is_one_that_the_package_takes_and_its_types_are_checked_for():
    (base,) = (rest for rest in all_of("ARG") if rest.startswith("BASE="))
    version = re.fullmatch(r"BASE=python:([\d.]+)-slim-\w+", base)
    assert version and version[1] in SpecifierSet(PROJECT["requires-python"])
    assert version[1] == TOOLS["mypy"]["python_version"]


def test_its_user_is_not_root_and_its_program_is_u2pl():
    assert all_of("USER") == ["u2pl"]
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(k for k, name in enumerate(names) if name == "RUN")
    (words,) = map(json.loads, all_of("ENTRYPOINT"))
    assert words[-1] in PROJECT["scripts"]


def test_the_commands_of_its_guide_parse():
    guide = (REPOSITORY / "docs" / "docker.md").read_text()
    lines = re.findall(r"^\$ docker run (.+?)(?:  +#.*)?$", guide, re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line)
        image = words.index("u2pl")
        if "--entrypoint" not in words[:image]:
            parse(shlex.join(words[image:]))
        assert "--rm" in words[:image] and "$PWD:/work" in words[:image]
    assert all_of("WORKDIR") == ["/work"]


@pytest.mark.slow
def test_the_wheel_of_its_context_is_the_wheel_that_is_released(packed: Packed, tmp_path: Path):
    for name in context():
        target = tmp_path / "context" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((REPOSITORY / name).read_bytes())
    words = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--wheel",
        "--outdir",
        tmp_path,
        tmp_path / "context",
    ]
    subprocess.run(words, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    assert found == packed.installed()
