"""The report in a real browser: what no parser of HTML can tell."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import driven
from fabricated import make_project, write_results
from PIL import Image

from u2pl.page.render import FigureFile, html
from u2pl.page.write import colors_of
from u2pl.pipeline import resolve
from u2pl.reporting.results import collect_all

PLAN = """
dataset: voc
seeds: [0, 1, 2]
tables:
  table1: {splits: {classic-1/8: classic-1/8, classic-1/4: classic-1/4}}
  table7: {splits: {blender-1/8: blender-1/8}}
"""
NUMBERS = {
    "suponly": (40.0, 41.0, 42.0),
    "mt": (43.0, 44.0, 40.25),
    "cutmix": (50.0, 52.0, 53.5),
    "u2pl": (51.0, 0.0, 54.0),
}
"""What the runs of the first split reach, by seed."""
CONTRAST = """
const numbers = (element, name) => getComputedStyle(element)[name].match(/[\\d.]+/g).slice(0, 3).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
  .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const parts = (colour) => {
  const found = colour.match(/[\\d.]+(e-?\\d+)?/g).map(Number);
  const scale = colour.startsWith('color(') ? 255 : 1;
  return [...found.slice(0, 3).map(v => v * scale), found[3] ?? 1];
};
// What lies behind a text: the colours of all that it stands in, one over the other.
const behind = (element) => {
  let under = element.parentElement ? behind(element.parentElement) : [255, 255, 255];
  const [r, g, b, alpha] = parts(getComputedStyle(element).backgroundColor);
  return under.map((v, i) => v + alpha * ([r, g, b][i] - v));
};
const all = 'h1, h2, h3, p, th, td, summary, a, button, .badge, .note, td small, svg text';
return [...document.querySelectorAll(all)].map(e => {
  const ink = light(numbers(e, e.namespaceURI.endsWith('svg') ? 'fill' : 'color'));
  const paper = light(behind(e));
  return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
}).reduce((a, b) => Math.min(a, b));
"""
"""The lowest contrast of any text with what lies behind it."""
WIDTHS = [360, 768, 1280]


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
    for name, numbers in NUMBERS.items():
        for path in project.root.glob(f"results/runs/voc-classic-1_8-{name}-s*/metrics.json"):
            metrics = json.loads(path.read_text())
            metrics["miou"]["reported"] = numbers[metrics["seed"]]
            if (name, metrics["seed"]) == ("mt", 2):
                metrics["recipe"]["lr"] = 0.5
            path.write_text(json.dumps(metrics))
    picture = project.root / "picture.png"
    shutil.copy(next(project.root.rglob("*.input.png")), picture)
    shown = [
        FigureFile("Figure 1", "What was drawn.", picture),
        FigureFile("Figure 2", "What was not.", Path("no.png")),
    ]
    address = project.root / "index.html"
    text = html(plan, collect_all(project, plan), shown, colors=colors_of(project, {"voc"}))
    address.write_text(text, encoding="utf-8")
    return address.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with driven() as browser:
        yield browser


def show(
    browser: Any,
    address: str,
    *,
    width: int = 1280,
    scheme: str = "light",
    media: str = "",
    scripts: bool = True,
) -> None:
    """Open the page anew on a screen of that width, by day or night, or as the printer gets it."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
    browser.get("about:blank")  # another address behind # alone would open nothing anew
    browser.get(address)


def find(browser: Any, selector: str) -> list[Any]:
    return list(browser.find_elements("css selector", selector))


def centre(browser: Any, element: Any) -> None:
    """Bring an element into sight."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)


def click(browser: Any, selector: str, place: int = 0) -> Any:
    """Click as a reader does: where the element is, if nothing lies over it."""
    element = find(browser, selector)[place]
    centre(browser, element)
    element.click()
    return element


def choose(browser: Any, selector: str, words: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(find(browser, selector)[0]).select_by_visible_text(words)


def wait(browser: Any, reached: Callable[[], Any]) -> Any:
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 10).until(lambda _: reached())


def open_cell(browser: Any, row: str, column: int = 0) -> None:
    """Click the cell of Table 1 in that row."""
    rows = "[...document.querySelectorAll('#table-table1 > .two tbody tr')]"
    script = f"return {rows}.findIndex(r => r.cells[0].innerText === arguments[0])"
    place = browser.execute_script(script, row)
    click(browser, f"#table-table1 > .two tbody tr:nth-child({place + 1}) a.cell", column)
    wait(browser, lambda: find(browser, "dialog[open]"))


def dialog(browser: Any) -> str:
    return find(browser, "dialog")[0].text


# ---- how it looks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [320, *WIDTHS])
def test_nothing_is_wider_than_the_screen_and_everything_has_a_size(
    browser: Any, address: str, width: int
) -> None:
    show(browser, address, width=width)
    root = "document.documentElement"
    assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    browser.execute_script(
        "document.querySelectorAll('details').forEach(e => { e.removeAttribute('name'); e.open = true; })"
    )
    assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    small = "[...document.querySelectorAll('main table, main figure, main img, main figure > svg')]"
    sizes = browser.execute_script(
        f"return {small}.map(e => e.getBoundingClientRect()).map(r => [r.width, r.height])"
    )
    assert len(sizes) > 40
    assert all(wide > 30 and high > 20 for wide, high in sizes)


def test_the_answer_and_the_first_table_are_on_the_first_screen(browser: Any, address: str) -> None:
    show(browser, address)
    for selector in ("h1", ".badge", ".gain svg", "#table-table1 h2"):
        box = find(browser, selector)[0].rect
        assert 0 <= box["y"] < box["y"] + box["height"] <= 900, selector
    assert "is +" in find(browser, "h1")[0].text and "above SupOnly" in find(browser, "h1")[0].text
    right = find(browser, ".gain svg")[0].rect
    assert right["x"] > 640 and right["width"] > 300  # the right half is not empty


def test_nothing_is_asked_of_the_network_and_the_console_is_silent(browser: Any, address: str) -> None:
    for log in ("performance", "browser"):
        browser.get_log(log)  # what earlier pages left
    show(browser, address)
    open_cell(browser, "CutMix")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("data:", "about:"))] == [address]
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_by_day_and_by_night(browser: Any, address: str, scheme: str, width: int) -> None:
    show(browser, address, scheme=scheme, width=width)
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    red = int(paper.removeprefix("rgb(").split(",")[0])
    assert red > 200 if scheme == "light" else red < 60
    assert browser.execute_script(CONTRAST) >= 4.5
    open_cell(browser, "CutMix")
    assert browser.execute_script(CONTRAST) >= 4.5
    root = "document.documentElement"
    assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
    box = find(browser, "dialog")[0].rect
    assert box["width"] <= width
    inside = "const d = document.querySelector('dialog'); return d.scrollWidth <= d.clientWidth"
    assert browser.execute_script(inside)


def test_a_print_shows_what_a_screen_hides_behind_a_click(browser: Any, address: str) -> None:
    show(browser, address, scheme="dark", media="print")
    closed = "[...document.querySelectorAll('details:not([open]):not(.all-settings)')]"
    heights = browser.execute_script(
        f"return {closed}.map(e => e.firstElementChild.nextElementSibling.getBoundingClientRect().height)"
    )
    assert len(heights) > 5
    assert all(height > 10 for height in heights)
    assert not any(each.is_displayed() for each in find(browser, ".viewer, nav, .files"))
    assert (
        browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        == "rgb(255, 255, 255)"
    )


def test_without_a_script_a_cell_leads_to_its_run_and_all_pictures_are_there(
    browser: Any, address: str
) -> None:
    show(browser, address, scripts=False)
    try:
        link = find(browser, "#table-table1 a.cell")[0]
        target = link.get_attribute("href")
        browser.get(target)
        (card,) = find(browser, f'[id="{_decoded(target)}"]')
        assert card.is_displayed() and "fingerprint" in card.text
        assert not find(browser, ".viewer, dialog")
        assert find(browser, ".strips[open] .strip img")[0].is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def _decoded(address: str) -> str:
    from urllib.parse import unquote

    return unquote(address.partition("#")[2])


# ---- what can be clicked -----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
def test_a_click_on_the_head_of_a_column_sorts_the_table_by_its_numbers(
    browser: Any, address: str, width: int
) -> None:
    show(browser, address, width=width)
    body = "[...document.querySelectorAll('#table-table1 > .two tbody tr')]"
    rows = f"return {body}.map(r => [r.cells[0].innerText, r.cells[2].innerText])"
    before = browser.execute_script(rows)

    def numbers() -> list[float]:
        found = [re.match(r"[\d.]+", cell) for _, cell in browser.execute_script(rows)]
        assert found[-1] is None  # the row without a number stays last
        return [float(each[0]) for each in found if each]

    heads = "#table-table1 > .two thead th button"
    click(browser, heads, 2)
    assert numbers() == sorted(numbers(), reverse=True) and len(numbers()) >= 3
    assert find(browser, "#table-table1 > .two thead th")[2].get_attribute("aria-sort") == "descending"
    click(browser, heads, 2)
    assert numbers() == sorted(numbers())
    click(browser, heads, 2)
    assert browser.execute_script(rows) == before


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_cell_opens_its_run_with_curves_classes_confusion_and_settings(
    browser: Any, address: str, width: int, scheme: str
) -> None:
    show(browser, address, width=width, scheme=scheme)
    open_cell(browser, "MT")
    text = dialog(browser)
    assert text.startswith("MT, voc, classic-1/8 (183 labelled)")
    titles = [each.text for each in find(browser, "dialog h3")]
    assert titles[:3] == ["mIoU (%)", "IoU of each class (%)", "Settings other than most runs'"]
    assert {"mIoU (%)", "Reliable pixels (%)", "Right ones of the reliable pixels (%)"} <= {
        each.text for each in find(browser, "dialog svg text")
    }
    first = find(browser, "dialog .confusion tbody tr")[0]
    assert first.text.split() == ["background", "57", "7", "14", "21"]
    assert "57.1 % of background taken for background" in first.find_elements("css selector", "td")[
        0
    ].get_attribute("title")
    assert "recipe.lr" not in text
    for button in find(browser, "dialog header .button"):
        if button.text == "seed 2":
            button.click()
    wait(browser, lambda: "recipe.lr" in dialog(browser))  # seed 2 of MT learns faster than all others
    row = next(each for each in find(browser, "dialog tbody tr") if "recipe.lr" in each.text)
    assert row.text.split() == ["recipe.lr", "0.5", "0.01"]
    click(browser, "dialog .close")
    assert not find(browser, "dialog[open]")


@pytest.mark.parametrize("width", WIDTHS)
def test_two_cells_stand_side_by_side_with_a_paired_test_over_their_seeds(
    browser: Any, address: str, width: int
) -> None:
    from scipy.stats import ttest_rel

    show(browser, address, width=width)
    open_cell(browser, "CutMix")
    choose(browser, "dialog select", "MT, voc, classic-1/8 (183 labelled)")
    wait(browser, lambda: "two-sided paired t-test" in dialog(browser))
    # The keyboard stays where it was.
    assert browser.switch_to.active_element.get_attribute("aria-label") == "Beside"
    rows = [each.text.split() for each in find(browser, "dialog .parts > div:first-child tbody tr")]
    pairs = [(float(ours), float(theirs)) for _, _, ours, theirs, _ in rows[:3]]
    assert [row[4] for row in rows[:3]] == [
        f"{ours - theirs:+.2f}".replace("-", "−") for ours, theirs in pairs
    ]
    p = ttest_rel(*zip(*pairs, strict=True)).pvalue
    assert f"p = {p:.3f}: two-sided paired t-test over 3 seeds" in dialog(browser)
    assert len(find(browser, "dialog .confusion")) == 2
    assert find(browser, "dialog h2")[0].text.splitlines()[1].strip().startswith("MT, voc")
    assert "Settings that differ" in dialog(browser)
    differ = [each.text.split() for each in find(browser, "[aria-label=Settings] tbody tr")]
    assert differ == [["method", "cutmix", "mt"]]  # seed 0 of both learns at the same rate
    # The address says what is open: who gets it sees the same.
    shared = browser.current_url
    show(browser, shared, width=width)
    wait(browser, lambda: find(browser, "dialog[open]"))
    assert "two-sided paired t-test" in dialog(browser)
    click(browser, "dialog .close")
    assert "#see" not in browser.current_url


def test_a_step_back_closes_what_a_click_opened_and_nothing_opens_again(browser: Any, address: str) -> None:
    from selenium.webdriver.common.keys import Keys

    show(browser, address)
    open_cell(browser, "CutMix")
    choose(browser, "dialog select", "MT, voc, classic-1/8 (183 labelled)")
    wait(browser, lambda: "MT, voc" in find(browser, "dialog h2")[0].text)
    browser.back()
    wait(browser, lambda: not find(browser, "dialog[open]"))
    assert browser.current_url == address
    open_cell(browser, "CutMix")
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    wait(browser, lambda: not find(browser, "dialog[open]"))
    wait(browser, lambda: browser.current_url == address)
    browser.back()
    assert not find(browser, "dialog[open]")


def test_cells_of_other_splits_are_not_called_a_comparison(browser: Any, address: str) -> None:
    show(browser, address)
    open_cell(browser, "CutMix")
    choose(browser, "dialog select", "CutMix, voc, classic-1/4 (366 labelled)")
    wait(browser, lambda: "no comparison of methods" in dialog(browser))


@pytest.mark.parametrize(
    ("where", "left", "wide"), [("#table-table1 .chart", 0.18, 0.79), ("dialog .chart", 0.11, 0.86)]
)
def test_a_curve_says_the_values_under_the_pointer_and_counts_epochs_from_1(
    browser: Any, address: str, where: str, left: float, wide: float
) -> None:
    from selenium.webdriver import ActionChains

    show(browser, address)
    if where.startswith("dialog"):
        open_cell(browser, "CutMix")
    chart = find(browser, where)[0]
    centre(browser, chart)
    box = chart.find_element("css selector", "svg").rect
    epochs = []
    for share in (0.0, 1.0):
        # The axes lie between the margins of the picture.
        across = round((left + wide * share - 0.5) * box["width"])
        ActionChains(browser, duration=0).move_to_element_with_offset(chart, across, 0).perform()
        reading = wait(browser, lambda: [e for e in find(browser, f"{where} .reading") if e.is_displayed()])[
            0
        ]
        first, *values = reading.text.splitlines()
        epochs.append(int(first.removeprefix("epoch ")))
        assert any(line.startswith("CutMix") for line in values)
        inside = reading.rect
        assert inside["x"] >= chart.rect["x"] - 1
        assert inside["x"] + inside["width"] <= chart.rect["x"] + chart.rect["width"] + 1
    assert epochs == [1, 12]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_two_pictures_of_an_image_lie_under_a_slider(
    browser: Any, address: str, width: int, scheme: str
) -> None:
    show(browser, address, width=width, scheme=scheme)
    stage, slider = find(browser, ".stage")[0], find(browser, ".viewer input")[0]
    centre(browser, stage)
    left, right = (f".viewer select[aria-label='{side} picture']" for side in ("Left", "Right"))
    options = find(browser, left)[0].text.splitlines()
    assert [word.strip() for word in options[:3]] == ["Input", "Truth", "SupOnly"]
    assert "CutMix, entropy" in [word.strip() for word in options]
    choose(browser, left, "Input")
    choose(browser, right, "CutMix, entropy")
    below, above = stage.find_elements("css selector", "img")
    shown = {
        e.find_element("css selector", "figcaption").get_attribute("textContent"): e
        for e in find(browser, ".row:first-of-type figure")
    }
    assert below.get_attribute("src") == shown["Input"].find_element("css selector", "img").get_attribute(
        "src"
    )
    assert above.get_attribute("src") == shown["CutMix, entropy"].find_element(
        "css selector", "img"
    ).get_attribute("src")
    assert slider.get_attribute("value") == "50"

    def seen(share: float) -> Any:
        """The colours of the stage at that share of its width."""
        import base64
        import io

        shot = Image.open(io.BytesIO(base64.b64decode(stage.screenshot_as_base64))).convert("RGB")
        colours = np.asarray(shot).astype(int)
        return colours[:, round(share * (colours.shape[1] - 1))]

    at_half = seen(0.25)
    from selenium.webdriver import ActionChains

    quarter = -round(0.4 * stage.rect["width"])
    ActionChains(browser, duration=0).move_to_element_with_offset(stage, quarter, 0).click().perform()
    assert int(slider.get_attribute("value")) == pytest.approx(10, abs=2)
    now = seen(0.25)
    assert np.abs(now - at_half).mean() > 5  # there the upper picture begins now
    assert np.median(np.ptp(now, axis=1)) <= 8  # and it is grey: entropy
    second = find(browser, ".film button")[1]
    source = above.get_attribute("src")
    second.click()
    assert second.get_attribute("aria-pressed") == "true"
    assert above.get_attribute("src") != source
    assert find(browser, right)[0].get_attribute("value") == "CutMix, entropy"  # the choice is kept


def test_from_two_open_cells_a_click_leads_to_their_predictions_beside_each_other(
    browser: Any, address: str
) -> None:
    show(browser, address)
    open_cell(browser, "CutMix")
    choose(browser, "dialog select", "SupOnly, voc, classic-1/8 (183 labelled)")
    wait(browser, lambda: "SupOnly" in find(browser, "dialog h2")[0].text)
    click(browser, "dialog .parts > div:last-child .button")
    assert not find(browser, "dialog[open]")
    chosen = [each.get_attribute("value") for each in find(browser, ".viewer select")]
    assert chosen == ["CutMix", "SupOnly"]


def test_a_cell_leads_to_the_pictures_of_its_own_run(browser: Any, address: str) -> None:
    show(browser, address)
    open_cell(browser, "CutMix", 1)  # of the second split, which has images of its own
    run = find(browser, "dialog h3")[-2].text.strip()
    assert run == "voc-classic-1_4-cutmix-s0"
    click(browser, "dialog .parts > div:last-child .button")
    (first, *_) = find(browser, f"figure[data-run='{run}'] img")
    _, above = find(browser, ".stage img")
    assert above.get_attribute("src") == first.get_attribute("src")
    assert [each.get_attribute("value") for each in find(browser, ".viewer select")] == ["Truth", "CutMix"]


def test_a_curve_can_be_read_with_the_keyboard_and_with_a_finger(browser: Any, address: str) -> None:
    from selenium.webdriver.common.keys import Keys

    show(browser, address, width=360)
    chart = find(browser, "#table-table1 .chart")[0]
    centre(browser, chart)

    def reading() -> str:
        return "".join(each.text for each in find(browser, ".reading") if each.is_displayed())

    chart.send_keys(Keys.ARROW_RIGHT)
    assert reading().startswith("epoch 1\n")
    chart.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert reading().startswith("epoch 3\n")
    browser.execute_script("document.activeElement.blur()")
    assert reading() == ""
    box = browser.execute_script(
        "const r = arguments[0].getBoundingClientRect(); return [r.x, r.y, r.width, r.height]", chart
    )
    at = {"x": box[0] + 0.9 * box[2], "y": box[1] + 0.5 * box[3]}
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at]})
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert reading().startswith("epoch 1")  # and stays


def test_a_column_of_splits_sorts_as_words_in_their_order(browser: Any, address: str) -> None:
    show(browser, address)
    column = "return [...document.querySelectorAll('#runs table tbody tr')].map(r => r.cells[2].innerText)"
    click(browser, "#runs details:not([open]) > summary")
    click(browser, "#runs table thead button", 2)
    splits = browser.execute_script(column)
    assert splits == sorted(splits, key=lambda text: (text.split("-")[0], int(text.split("/")[1])))
    assert len(set(splits)) == 3


def test_one_list_of_a_table_opens_at_a_time_so_that_the_page_stays_short(browser: Any, address: str) -> None:
    show(browser, address)
    assert browser.execute_script("return document.documentElement.scrollHeight") < 6000
    details = "#table-table1 > details[name]"
    opened = f"return [...document.querySelectorAll('{details}')].filter(e => e.open).length"
    assert browser.execute_script(opened) == 1
    click(browser, f"{details}:not([open]) > summary")
    assert browser.execute_script(opened) == 1


def test_a_figure_is_small_until_it_is_clicked(browser: Any, address: str) -> None:
    show(browser, address)
    picture = find(browser, ".picture img")[0]
    before = picture.rect["width"]
    click(browser, ".picture img")
    assert picture.rect["width"] > 2 * before
    from selenium.webdriver.common.keys import Keys

    button = find(browser, ".picture [role=button]")[0]
    assert button.accessible_name == "Enlarge Figure 1."
    button.send_keys(Keys.ENTER)
    assert picture.rect["width"] == before
