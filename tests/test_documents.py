"""What the documents of the house say of the code: rooms, files, commands and citation."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from test_architecture import ALLOWED

from u2pl import __version__

ROOT = Path(__file__).parents[1]
ROOMS = [f"u2pl/{path.parent.name}" for path in (ROOT / "u2pl").glob("*/__init__.py")]
DOCUMENTS = sorted(
    [
        *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "reports/README.md"),
        *(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md")),
    ]
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(name: str, heading: str) -> str:
    """A section of a document, without its heading."""
    _, found, rest = read(name).partition(f"\n## {heading}\n")
    assert found, f"{name} has no section {heading!r}"
    return rest.partition("\n## ")[0]


@pytest.mark.parametrize(("name", "heading"), [("README.md", "Map"), ("CONTRIBUTING.md", "Rooms")])
def test_a_map_has_every_room_once_and_no_other(name: str, heading: str):
    found = re.findall(r"^\|? ?`?(u2pl/\w+)|  (u2pl/\w+)", section(name, heading), re.MULTILINE)
    assert sorted(first or second for first, second in found) == sorted(ROOMS)


def test_rooms_are_told_in_the_order_in_which_they_may_import_each_other():
    told = re.findall(r"^\| `u2pl/(\w+)`", section("CONTRIBUTING.md", "Rooms"), re.MULTILINE)
    assert told == [room for room in ALLOWED if f"u2pl/{room}" in ROOMS]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_a_document_links_to_is_there(name: str):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)|<img src=\"([^\"]+)\"", read(name))
    paths = [path for link in links if not (path := link[0] or link[1]).startswith(("http:", "https:"))]
    assert not [path for path in paths if not ((ROOT / name).parent / path).exists()]


def test_what_contributors_are_told_to_read_or_to_run_is_there():
    text = read("CONTRIBUTING.md")
    named = re.findall(r"`((?:u2pl|cli|tests|benchmarks|docs|pipelines)/[\w./-]*)`|-q (\S+)", text)
    paths = [first or second for first, second in named if "NAME" not in first]
    assert len(paths) > 20
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_the_readme_is_one_screen_and_says_what_one_needs_first():
    text = read("README.md")
    before_the_documents, _, _ = text.partition("\n## ")
    assert len(text.split()) < 700
    for wanted in (
        "docs/images/demo.png",
        "±",
        "$ make demo",
        "$ make test",
        "$ dvc repro",
        "$ u2pl auto photos",
    ):
        assert wanted in before_the_documents
    for command in ("prepare --dataset voc --split classic-1/16", "ablate --param alpha0 0.1 0.2 0.3"):
        assert f"$ u2pl {command}" in before_the_documents


def test_the_readme_leads_to_every_page():
    links = set(re.findall(r"\]\((docs/[^)#]+\.md)\)", read("README.md")))
    generated = {f"docs/reference/{name}.md" for name in ("api", "commands", "settings")}
    pages = {name for name in DOCUMENTS if name.startswith("docs/")}
    assert links == pages - generated - {"docs/index.md", "docs/changelog.md"}
    assert "](CHANGELOG.md)" in read("README.md")  # which the latter shows on the site


def test_the_citation_names_the_software_as_it_is_and_the_paper_with_all_of_its_authors():
    citation = yaml.safe_load(read("CITATION.cff"))
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert {"cff-version", "message", "title", "authors", "type"} <= set(citation)
    assert citation["title"] == project["name"]
    assert citation["version"] == project["version"] == __version__
    assert citation["license"] == project["license"] == "MIT"
    paper = citation["preferred-citation"]
    names = ", ".join(author["family-names"] for author in paper["authors"])
    assert f"{names}: *{paper['title']}*, CVPR {paper['year']}" in section(
        "README.md", "Citation and licence"
    )
    assert all(author["given-names"] for author in paper["authors"])


def test_the_licence_is_the_one_that_is_declared_and_goes_with_an_installation():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert project["license-files"] == ["LICENSE"]
    first, _, holder = read("LICENSE").splitlines()[:3]
    assert (first, holder) == (f"{project['license']} License", "Copyright (c) 2026 The u2pl authors")
