"""The report in a real browser: what no parser of HTML can tell."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fabricated import make_project, write_results

from u2pl.pipeline import resolve
from u2pl.reporting import page
from u2pl.reporting.results import collect_all

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
]
PLAN = """
dataset: voc
seeds: [0, 1]
tables:
  table1: {splits: {classic-1/8: classic-1/8, classic-1/4: classic-1/4}}
  table7: {splits: {blender-1/8: blender-1/8}}
"""
CONTRAST = """
const numbers = (element, name) => getComputedStyle(element)[name].match(/[\\d.]+/g).slice(0, 3).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
  .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const paper = light(numbers(document.body, 'backgroundColor'));
return [...document.querySelectorAll('h1, h2, p, th, summary, a, .note, td small, svg text')].map(e => {
  const ink = light(numbers(e, e.namespaceURI.endsWith('svg') ? 'fill' : 'color'));
  return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
}).reduce((a, b) => Math.min(a, b));
"""
"""The lowest contrast of any text with the page."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with the paper's numbers, cited rows, several seeds, missing cells, footnotes and figures."""
    project = make_project(tmp_path_factory.mktemp("browser"))
    (project.pipelines / "plans/own.yaml").write_text(PLAN)
    plan = resolve(project, "own")
    write_results(project, plan)
    for folder in [
        *project.root.glob("results/runs/*-1_4-mt-*"),
        *project.root.glob("results/*/*-classic-1_8-u2pl-s1"),
    ]:
        shutil.rmtree(folder)
    picture = project.root / "picture.png"
    shutil.copy(next(project.root.rglob("*.input.png")), picture)
    shown = [("Figure 1", "What was drawn.", picture), ("Figure 2", "What was not.", Path("no.png"))]
    address = project.root / "index.html"
    address.write_text(page.html(plan, collect_all(project, plan), shown), encoding="utf-8")
    return address.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven; where there is none the tests are skipped, unless U2PL_BROWSER=required."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (program and driver):
        missing = "no Chromium with its driver (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get("U2PL_BROWSER") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    from selenium import webdriver

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = program
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        for flag in [*FLAGS, f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        driven = webdriver.Chrome(options, webdriver.ChromeService(driver))
        yield driven
        driven.quit()


def show(browser: Any, address: str, *, width: int = 1280, scheme: str = "light", media: str = "") -> None:
    """Open the page on a screen of that width, by day or night, or as the printer gets it."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    browser.get(address)


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_is_wider_than_the_screen_and_everything_has_a_size(
    browser: Any, address: str, width: int
) -> None:
    show(browser, address, width=width)
    root = "document.documentElement"
    assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    browser.execute_script("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    small = "[...document.querySelectorAll('table, figure, img, .grid svg, .spread svg')]"
    sizes = browser.execute_script(
        f"return {small}.map(e => e.getBoundingClientRect()).map(r => [r.width, r.height])"
    )
    assert len(sizes) > 20
    assert all(wide > 40 and high > 20 for wide, high in sizes)


def test_nothing_is_asked_of_the_network_and_the_console_is_silent(browser: Any, address: str) -> None:
    for log in ("performance", "browser"):
        browser.get_log(log)  # what earlier pages left
    show(browser, address)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_by_day_and_by_night(browser: Any, address: str, scheme: str) -> None:
    show(browser, address, scheme=scheme)
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    red = int(paper.removeprefix("rgb(").split(",")[0])
    assert red > 200 if scheme == "light" else red < 60
    assert browser.execute_script(CONTRAST) >= 4.5


def test_a_print_shows_what_a_screen_hides_behind_a_click(browser: Any, address: str) -> None:
    show(browser, address, scheme="dark", media="print")
    closed = "[...document.querySelectorAll('details:not([open]):not(.all-settings)')]"
    heights = browser.execute_script(
        f"return {closed}.map(e => e.firstElementChild.nextElementSibling.getBoundingClientRect().height)"
    )
    assert len(heights) > 5
    assert all(height > 10 for height in heights)
    assert (
        browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        == "rgb(255, 255, 255)"
    )
