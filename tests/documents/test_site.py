"""The site: it is built strictly, holds what the program knows of itself, and works as files without a network."""

import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chromium import driven
from doc_reference import walk
from tiny import REPOSITORY
from typer.main import get_command
from u2pl_cli.app import app

import u2pl

DOCS = REPOSITORY / "docs"


def build(source: Path, target: Path) -> "subprocess.CompletedProcess[str]":
    """As `make docs` does."""
    line = [sys.executable, "-m", "sphinx", "-E", "-b", "html", "-W", "--keep-going", "-q", source, target]
    return subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site") / "html"
    done = build(DOCS, target)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with driven() as found:
        yield found


def seen(page: Path) -> str:
    """The words of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", page.read_text(encoding="utf-8"))).split())


def test_make_builds_it_as_it_is_built_here():
    assert "-m sphinx -E -b html -W --keep-going -q docs build/site" in (REPOSITORY / "Makefile").read_text()
    ignored = subprocess.run(["git", "check-ignore", "-q", "build/site/index.html"], cwd=REPOSITORY)
    assert ignored.returncode == 0


def test_the_map_leads_to_every_page(site: Path):
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.glob("**/*.md")}
    index = (site / "index.html").read_text(encoding="utf-8")
    article = index[index.index("<article") : index.index("</article>")]
    led_to = {Path(link) for link in re.findall(r'href="([^"#]+\.html)', article)}
    assert led_to == pages - {Path("index.html")}


def test_every_command_and_option_stands_in_the_reference(site: Path):
    text = seen(site / "reference" / "commands.html")
    for words, command in walk(get_command(app)):
        assert f"$ {' '.join(words)}" in text
        for parameter in command.params:
            if not getattr(parameter, "hidden", False) and parameter.param_type_name == "option":
                assert parameter.opts[0] in text
    assert "{methods}" not in text and "prepare-splits" not in text


def test_every_setting_stands_in_the_reference_with_its_value_and_meaning(site: Path):
    text = seen(site / "reference" / "settings.html")
    values = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    for section in set(values) - {"splits"}:
        for key in values[section] or {}:
            assert key in text, f"{section}.{key}"
    assert "tau 0.5 number, > 0 Temperature (Eq. 4). temperature (Tables A1 and A6)" in text


def test_every_public_name_stands_in_the_api(site: Path):
    text = (site / "reference" / "api.html").read_text(encoding="utf-8")
    modules = {"losses", "methods", "__version__"}
    for name in set(u2pl.__all__) - modules:
        assert f'id="u2pl.{name}"' in text
    for name in ("losses.contrastive.info_nce", "losses.partition.gamma_t", "methods.create"):
        assert f'id="u2pl.{name}"' in text
    assert "(C, P) uint8" in seen(site / "reference" / "api.html")


def test_a_page_asks_the_network_for_nothing(site: Path):
    for page in site.glob("**/*.html"):
        asked = re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="([^"]*)"', page.read_text("utf-8"))
        assert not [address for address in asked if re.match(r"(https?:)?//", address)], page
    styles = [path.read_text("utf-8") for path in site.glob("_static/**/*.css")]
    assert styles and not [
        found for text in styles for found in re.findall(r"url\([\"']?(?:https?:)?//", text)
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a](nowhere.md)", "nowhere"),
        ("[a](#nowhere)", "nowhere"),
        ("[a](other.md#nowhere)", "nowhere"),
        ("![a](nowhere.png)", "nowhere.png"),
        ("```{eval-rst}\n.. autofunction:: u2pl.nowhere\n```", "nowhere"),
        ("```{eval-rst}\n:py:func:`u2pl.nowhere`\n```", "u2pl.nowhere"),
    ],
)
def test_what_leads_nowhere_fails_the_build(text: str, says: str, tmp_path: Path):
    source = tmp_path / "docs"
    shutil.copytree(DOCS / "site", source / "site")
    shutil.copy(DOCS / "conf.py", source)
    (source / "index.md").write_text(f"# Start\n\n{text}\n\n```{{toctree}}\nother\n```\n", encoding="utf-8")
    (source / "other.md").write_text("# Other\n", encoding="utf-8")
    done = build(source, tmp_path / "html")
    assert done.returncode != 0
    assert says in done.stderr


def test_the_search_finds_without_a_server_and_nothing_is_asked(site: Path, browser: Any):
    browser.get_log("performance")
    browser.get((site / "search.html").as_uri() + "?q=entropy")
    browser.implicitly_wait(10)
    assert browser.find_elements("css selector", "#search-results li a")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert not [url for url in asked if url.startswith(("http:", "https:"))]


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_the_screen(site: Path, browser: Any, width: int):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for page in ("index", "fidelity", "results", "reference/settings", "reference/api", "tutorials/table"):
        browser.get((site / f"{page}.html").as_uri())
        assert browser.execute_script(
            "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        ), page
