import base64
import csv
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fabricated import street_plan, write_results
from PIL import Image

from u2pl.files import sha256, write_json
from u2pl.pipeline import resolve
from u2pl.project import Project
from u2pl.reporting import charts, examples, page
from u2pl.reporting.links import links
from u2pl.reporting.results import TableResults, collect, collect_all

VOID = {"meta", "img", "br", "path", "use"}


class Outline(HTMLParser):
    """Checks that elements nest, and collects ids and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        addresses = [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        (self.links if tag == "a" else self.loaded).extend(addresses)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def by_epoch(*values: float) -> "pd.Series[float]":
    return pd.Series(values, range(1, len(values) + 1))


def outline(text: str) -> Outline:
    parsed = Outline()
    parsed.feed(text)
    assert parsed.open == []
    return parsed


def test_the_page_needs_nothing_but_itself(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    parsed = outline(page.html(plan, collect_all(project, plan)))
    assert all(address.startswith(("#", "data:image/")) for address in parsed.loaded)
    assert len(set(parsed.ids)) == len(parsed.ids)


def test_the_page_holds_headline_tables_curves_classes_examples_and_runs(project: Project) -> None:
    plan = resolve(project, "demo")
    write_results(project, plan)
    text = page.html(plan, collect_all(project, plan))
    assert (
        "On shapes, with 60 of 480 images labelled, U²PL (w/ CutMix), the best of 4, reaches 65.0 % mIoU, "
        "18.0 above SupOnly (47.0), 1 seed." in text
    )
    assert "19 of 19" in text
    # mIoU, reliable share and accuracy of every split, and each table's seeds
    assert text.count("<svg xmlns") == (3 + 1 + 1) * 3 + 3
    assert text.count('class="heat"') == 5
    # An image of each of three splits; three images of one split.
    assert text.count("<img") == 3 * (2 + 4) + 3 * (2 + 3) + 3 * (2 + 4)
    assert text.count('class="run"') == 17  # the one at the default values stands in three tables


def test_the_page_says_where_an_miou_is_over_fewer_classes(project: Project) -> None:
    plan = resolve(project, "demo", ["table1"])
    write_results(project, plan)
    text = page.html(plan, collect_all(project, plan))
    assert "reaches 63.0 % mIoU over 3 of 4 classes, 18.0 above SupOnly (45.0)" in text
    assert "shapes-1_16-mt-s0: 51.00 % over 3 of 4 classes (last of 12 epochs)" in text
    assert "shapes-1_8-mt-s0: 53.00 % (last of 12 epochs)" in text
    assert "mIoU over 3 of 4 classes (without ring)</p>" in text


def test_a_plan_of_several_data_sets_says_of_which_the_headline_and_a_table_are(project: Project) -> None:
    (project.pipelines / "plans/two.yaml").write_text(
        """
seeds: [0]
tables:
  streets: {table: methods, title: Streets, dataset: camvid, splits: {classic-1/8: 1/8}, rows: [SupOnly, MT]}
  houses: {table: methods, title: Houses, dataset: facade, splits: {classic-1/8: 1/8}, rows: [SupOnly, MT]}
"""
    )
    plan = resolve(project, "two")
    write_results(project, plan)
    paths = page.write(project, plan, collect_all(project, plan))
    text = (project.root / paths[0]).read_text(encoding="utf-8")
    assert "On camvid, with 60 of " in text
    assert "On facade, with 60 of " in text
    assert '<a href="#streets">Streets</a>' in text and "<h2>Houses</h2>" in text
    assert {"streets", "houses"} <= set(outline(text).ids)


def test_the_page_says_what_runs_took_and_learned_from_and_how_classes_vary_over_seeds(
    project: Project,
) -> None:
    plan = resolve(project, "demo-full", ["table1"], [0, 1])
    write_results(project, plan)
    for seed, share in ((0, 0.5), (1, 0.7)):
        (project.root / f"results/runs/shapes-1_8-u2pl-s{seed}/history.csv").write_text(
            f"epoch,step,train/reliable/share,train/contrast/anchors\n1,50,{share},{1000 * share}\n"
        )
    filled = collect(project, plan, "table1")
    (group,) = (group for group in page.groups(filled) if group.split == "1/8")
    found = page.measured(group.title, group.runs)
    assert found.heads == [
        "reliable pixels, %",
        "right ones of these, %",
        "anchors a step",
        "training time, s",
        "time of a step, s",
    ]
    rows = dict(found.rows)
    assert rows["U²PL (w/ CutMix)"] == ["60.0 ± 14.1", "", "600.0 ± 141.4", "34 ± 0", "0.058 ± 0.000"]
    assert rows["SupOnly"][:3] == ["", "", ""]
    text = page.html(plan, [filled])
    assert "<td>60.0 ± 14.1</td>" in text and '<td class="missing">—</td>' in text
    (part,) = (part for part in page.classes(filled) if part.title == group.title)
    first, second = (run.metrics["iou"]["disk"] for run in group.runs["SupOnly"])
    mean, sd = part.rows["disk"][0]
    assert (mean, sd) == pytest.approx(((first + second) / 2, abs(first - second) / 2**0.5))
    assert sd > 0 and f"{mean:.1f}<small>± {sd:.1f}</small>" in text


def test_a_page_without_any_finished_run_says_so(project: Project) -> None:
    plan = resolve(project, "demo")
    paths = page.write(project, plan, collect_all(project, plan))
    text = (project.root / paths[0]).read_text()
    outline(text)
    assert "No run has finished yet." in text
    assert "19 results are planned" in text
    assert all(examples.picture(project.root / path).shape[1] > 100 for path in paths[1:])


def test_a_label_cannot_smuggle_markup_into_the_page(project: Project) -> None:
    path = project.pipelines / "tables/table1.yaml"
    path.write_text(path.read_text().replace("label: MT", "label: <script>$x"))
    plan = street_plan(project)
    write_results(project, plan)
    text = page.html(plan, collect_all(project, plan))
    outline(text)
    assert "<script>" not in text
    assert "&lt;script&gt;$x" in text


def test_the_same_results_give_the_same_page(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    assert page.html(plan, collect_all(project, plan)) == page.html(plan, collect_all(project, plan))


def test_results_without_history_or_samples_still_give_a_page(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    for file in [*project.root.rglob("history.csv"), *project.root.rglob("*.prediction.png")]:
        file.unlink()
    text = page.html(plan, collect_all(project, plan))
    assert text.count("<svg xmlns") == 1  # the seeds, for which numbers are enough
    assert "<img" not in text


def test_curves_have_points_only_where_an_epoch_was_validated(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    for file in project.root.rglob("history.csv"):
        rows = list(csv.DictReader(file.read_text().splitlines()))
        for row in rows:
            row["val/miou"] = row["val/miou"] if int(row["epoch"]) in (4, 8, 12) else ""
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    (panel,) = page.panels(collect(project, plan, "table1"), page.VALIDATION, "mIoU (%)")
    assert {tuple(curve.epochs) for curve in panel.curves} == {(4, 8, 12)}
    assert page.html(plan, collect_all(project, plan)).count("<svg xmlns") == 3 + 1


def test_runs_reported_by_their_best_epoch_are_compared_and_listed_by_it(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    for file in project.root.rglob("metrics.json"):
        metrics = json.loads(file.read_text())
        metrics["miou"]["reported"] = metrics["miou"]["best"]
        metrics["protocol"]["checkpoint"] = "best"
        metrics["flavor"] = "released"
        file.write_text(json.dumps(metrics))
    text = page.html(plan, collect_all(project, plan))
    assert "U²PL (w/ CutMix), the best of 4, reaches 52.2 % mIoU" in text
    assert "camvid-1_8-u2pl-s0: 52.25 % (best of 12 epochs)" in text
    assert "<span>last</span><span>51.00 %</span>" in text
    assert "<span>flavour</span><span>released</span>" in text


def voc_tables(project: Project, text: str) -> list[TableResults]:
    (project.pipelines / "plans/own.yaml").write_text(text)
    plan = resolve(project, "own")
    write_results(project, plan)
    return collect_all(project, plan)


def test_the_picture_of_seeds_has_ours_with_its_deviation_and_the_papers_number_of_every_cell(
    project: Project,
) -> None:
    table1 = project.root / "pipelines/tables/table1.yaml"
    table1.write_text(
        table1.read_text() + "  - {label: Theirs, cited: true, paper: [57.60, 65.50, 69.14, 72.41, 73.23]}\n"
    )
    (filled,) = voc_tables(
        project, "{dataset: voc, seeds: [0, 1], tables: {table1: {splits: {classic-1/8: classic-1/8}}}}"
    )
    ((title, points),) = page.points(filled).items()
    assert title == "1/8 (183)"
    assert [point.label for point in points][2:] == ["CutMix", "U²PL (w/ CutMix)", "Theirs ‡"]
    assert points[0].sd == pytest.approx(8.31 / 2**0.5)
    assert (points[-1].mean, points[-1].paper) == (None, 65.5)
    text = charts.spread_svg(page.points(filled), "seeds")
    ElementTree.fromstring(text)
    assert {"ours", "paper", "Theirs ‡"} <= set(re.findall(r">([^<>]+)</text>", text))


def test_values_of_one_setting_run_along_an_axis_in_the_order_of_the_table(project: Project) -> None:
    tables = voc_tables(project, "{dataset: voc, seeds: [0], tables: {table4: {}, table7: {}}}")
    unordered, ordered = (str(page._spread(filled)) for filled in tables)
    assert "mIoU by alpha0" in ordered
    assert [word for word in re.findall(r">([^<>]+)</text>", ordered) if "0 %" in word] == [
        *("40 %", "30 %", "20 %", "10 %")
    ]
    assert "mIoU by" not in unordered  # between words there is no line


def test_a_label_of_a_picture_keeps_its_digits() -> None:
    text = charts.spread_svg({"a": [charts.Point("lr 0.12345", 50.0, None, None)]}, "digits")
    assert ">lr 0.12345</text>" in text


def test_a_small_picture_keeps_the_colours_of_a_mask_and_takes_little_room(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    mask = draw.integers(0, 255, (21, 3), dtype=np.uint8)[draw.integers(0, 21, (300, 500))]
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(draw.integers(0, 255, (300, 500, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    small = examples.thumbnail(tmp_path / "mask.png")
    with Image.open(io.BytesIO(base64.b64decode(small.partition(",")[2]))) as image:
        assert image.size == (256, 154)
        assert {tuple(color) for color in np.asarray(image.convert("RGB")).reshape(-1, 3)} <= {
            tuple(color) for color in mask.reshape(-1, 3)
        }
    assert examples.thumbnail(tmp_path / "photo.png").startswith("data:image/jpeg")


def test_a_run_lists_where_its_settings_differ_from_most(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    path = project.root / "results/runs/camvid-1_8-mt-s0/metrics.json"
    path.write_text(path.read_text().replace('"lr": 0.01', '"lr": 0.5'))
    results = collect(project, plan, "table1").results
    usual = page.usual_settings(results)
    different = {result.method: page.settings_of(result, usual).different for result in results}
    assert different == {"suponly": [], "mt": [("recipe.lr", "0.5", "0.01")], "cutmix": [], "u2pl": []}


@pytest.mark.parametrize(
    ("store", "server"),
    [
        ("https://name:***@mlflow.example.org/base/", "https://mlflow.example.org/base"),
        ("sqlite:///{root}/mlflow.db", "http://127.0.0.1:5000"),
        ("databricks", None),
    ],
)
def test_a_run_links_to_its_mlflow_run_where_the_work_folder_knows_it(
    project: Project, store: str, server: str | None
) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    results = collect(project, plan, "table1").results
    for name, fingerprint in (("suponly", sha256("0suponly")[:16]), ("mt", "0" * 16)):
        where = {"store": store.format(root=project.root), "experiment": "1", "run": "abc"}
        write_json(project.runs / f"camvid-1_8-{name}-s0/tracking.json", where | {"fingerprint": fingerprint})
    found = links(project, results)
    address = {"camvid-1_8-suponly-s0": f"{server}/#/experiments/1/runs/abc"} if server else {}
    assert found.addresses == address
    local = ["mlflow ui --backend-store-uri sqlite:///mlflow.db"] if "sqlite" in store else []
    assert found.commands == local
    parsed = outline(page.html(plan, collect_all(project, plan), tracked=found))
    assert [link for link in parsed.links if "/runs/" in link] == list(address.values())


def test_the_page_links_to_each_table_ready_to_paste(project: Project) -> None:
    plan = street_plan(project)
    links_of_page = outline(page.html(plan, collect_all(project, plan))).links
    assert {f"tables/table1.{suffix}" for suffix in ("md", "csv", "tex")} <= set(links_of_page)


def test_figures_of_the_plan_are_embedded_and_a_missing_one_is_named(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    picture = next(project.root.rglob("*.input.png"))
    shown = [("Figure 1", "Drawn.", picture), ("Figure 2", "Planned.", project.root / "none.png")]
    text = page.html(plan, collect_all(project, plan), shown)
    assert f'<img src="{examples.data_uri(picture)}" alt="Figure 1">' in text
    assert "<strong>Figure 2.</strong> Planned. Not made yet." in text


def test_an_svg_takes_its_text_colour_from_the_page_and_is_well_formed() -> None:
    panel = charts.Panel("a & b < c", "mIoU (%)", (charts.curve("one", 0, [by_epoch(10.0, 20.0)]),))
    text = charts.svg(panel, "first")
    root = ElementTree.fromstring(text)
    assert "height" not in root.attrib
    assert "currentColor" in text
    assert charts.INK not in text
    assert all(name.startswith("first-") for name in re.findall(r'id="([^"]+)"', text))


def test_a_line_is_the_mean_over_the_epochs_that_every_seed_has() -> None:
    curve = charts.curve("u2pl", 3, [by_epoch(10.0, 20.0, 60.0), by_epoch(20.0, 40.0)])
    assert (curve.epochs, curve.mean, curve.low, curve.high) == (
        (1, 2),
        (15.0, 30.0),
        (10.0, 20.0),
        (20.0, 40.0),
    )


def test_equal_panels_are_drawn_once_under_whatever_words_and_differ_in_their_ids() -> None:
    charts._panel.cache_clear()
    one, two = (
        charts.Panel("same", "mIoU (%)", (charts.curve(label, 0, [by_epoch(10.0, 20.0)]),)) for label in "ab"
    )
    first, second = charts.svg(one, "first"), charts.svg(two, "second")
    assert charts._panel.cache_info().misses == 1
    assert "first-" in first and first.replace("first-", "second-") == second
    shown = {"1/8": [charts.Point("MT", 50.0, 1.0, 51.0), charts.Point("CutMix", 52.0, None, None)]}
    assert charts.spread_svg(shown, "x").replace("x-", "y-") == charts.spread_svg(shown, "y")


def test_the_contact_sheet_has_a_row_a_split_and_a_column_a_method(project: Project) -> None:
    plan = resolve(project, "demo", ["table1"])
    write_results(project, plan)
    found = page.sheet_rows(collect(project, plan, "table1"))
    assert [row.label for row in found] == [
        "1/16 (30 labelled)",
        "1/8 (60 labelled)",
        "1/4 (120 labelled)",
    ]
    assert list(found[0].pictures) == ["Input", "Truth", "SupOnly", "MT", "CutMix", "U²PL (w/ CutMix)"]
    assert {row.pictures["Input"].name for row in found} == {f"000{i}.input.png" for i in (1, 2, 3)}
    page.write(project, plan, collect_all(project, plan))
    height, width, _ = examples.picture(project.root / "reports/overview/examples.png").shape
    assert width > 1.5 * height


def test_of_one_split_the_contact_sheet_has_several_images_each_once(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    found = page.sheet_rows(collect(project, plan, "table1"))
    assert [row.pictures["Input"].name for row in found] == [f"000{i}.input.png" for i in (1, 2, 3)]
    for path in project.root.rglob("0002.input.png"):
        path.unlink()
    found = page.sheet_rows(collect(project, plan, "table1"))
    assert [row.pictures["Input"].name for row in found] == ["0001.input.png", "0003.input.png"]


@pytest.mark.parametrize(("seconds", "text"), [(44.6, "45 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert page.duration(seconds) == text


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("page", ("torch", "mlflow", "dvc")),
        ("table", ("torch", "mlflow", "dvc", "matplotlib", "PIL", "jinja2", "scipy")),
    ],
)
def test_reporting_imports_no_more_than_it_needs(module: str, unwanted: tuple[str, ...]) -> None:
    """`u2pl table` runs once for each table of a plan."""
    code = f"import sys, u2pl.reporting.{module}; sys.exit(any(m in sys.modules for m in {unwanted}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
