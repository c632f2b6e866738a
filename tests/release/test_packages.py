"""The sdist and the wheel: what is in them, and what they say of themselves."""

import re
import subprocess
import sys
import tarfile
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml
from packaging.metadata import Metadata
from release.packed import Packed
from tiny import REPOSITORY
from tracked import tracked

import u2pl
from u2pl.pipeline import new_project

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_one_version_stands_wherever_a_version_stands():
    changes = re.findall(
        r"^## (\S+)(?: \((\S+)\))?$", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    newest, day = next(each for each in changes if each[0] != "Unreleased")
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert {newest, PROJECT["version"], citation["version"]} == {u2pl.__version__}
    assert date.fromisoformat(day) == citation["date-released"]


@pytest.mark.slow
def test_the_sdist_has_every_file_that_git_has_and_no_other(packed: Packed):
    made = {"PKG-INFO", "setup.cfg"}
    found = {name for name in packed.sources() if not name.startswith("u2pl.egg-info/")}
    assert found - made == set(tracked())


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_packages_as_it_is_and_no_other(packed: Packed):
    """Templates, styles, scripts and data sets' descriptions too: a forgotten one shows with the first user."""
    folders = {"u2pl": "u2pl", "cli": "u2pl_cli"}
    wanted = {
        f"{folders[top]}/{rest}": (REPOSITORY / top / rest).read_bytes()
        for top, _, rest in (name.partition("/") for name in tracked())
        if top in folders
    }
    assert {Path(name).suffix for name in wanted} >= {".py", ".yaml", ".jinja", ".typed"}
    wanted |= {f"u2pl/project_files/{name}": text.encode() for name, text in new_project.template().items()}
    found = {name: text for name, text in packed.installed().items() if ".dist-info/" not in name}
    assert found.keys() == wanted.keys()
    assert [name for name, content in wanted.items() if found[name] != content] == []


@pytest.mark.slow
def test_what_is_packed_describes_itself_in_a_form_that_an_index_takes(packed: Packed):
    folder = f"u2pl-{u2pl.__version__}.dist-info"
    installed = packed.installed()
    written = Metadata.from_email(installed[f"{folder}/METADATA"], validate=True)
    assert written.as_rfc822().as_bytes()  # which validates every field once more
    assert Metadata.from_email(packed.sources()["PKG-INFO"], validate=True).name == written.name == "u2pl"
    assert (
        str(written.version) == u2pl.__version__
        and str(written.requires_python) == PROJECT["requires-python"]
    )
    assert (written.license_expression, written.license_files) == ("MIT", ["LICENSE"])
    assert written.description_content_type == "text/markdown"
    assert written.description == (REPOSITORY / "README.md").read_text()
    assert packed.sdist.name == f"u2pl-{u2pl.__version__}.tar.gz"
    assert packed.wheel.name == f"u2pl-{u2pl.__version__}-py3-none-any.whl"
    assert installed[f"{folder}/entry_points.txt"].decode().split() == [
        *("[console_scripts]", "u2pl", "=", "u2pl_cli.__main__:main")
    ]
    assert installed[f"{folder}/licenses/LICENSE"] == (REPOSITORY / "LICENSE").read_bytes()


@pytest.mark.slow
def test_an_unpacked_sdist_tests_itself(packed: Packed, tmp_path: Path):
    """As those do who package it for others: a few of its tests, where there is no git."""
    with tarfile.open(packed.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    words = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider"]
    files = ["tests/losses/test_ramp.py", "tests/test_documents.py"]
    done = subprocess.run([*words, *files], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
