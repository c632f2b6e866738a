import base64
import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from fabricated import street_plan, write_results
from outline import outline

from u2pl.files import write_text
from u2pl.page import gallery
from u2pl.page.contenders import contenders
from u2pl.page.differences import settings_of, usual_settings
from u2pl.page.folding import folded
from u2pl.page.groups import VALIDATION, classes, groups, panels, points, swept_setting
from u2pl.page.render import FigureFile, html
from u2pl.page.script_facts import script_facts
from u2pl.page.write import write
from u2pl.pipeline import resolve
from u2pl.project import Project
from u2pl.reporting import charts, examples
from u2pl.reporting.measures import measured
from u2pl.reporting.results import TableResults, collect, collect_all


def facts_of(text: str) -> dict:
    """What the page's script reads."""
    return json.loads(re.search(r'id="facts">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_needs_nothing_but_itself_and_all_its_links_lead_somewhere(project: Project) -> None:
    plan = resolve(project, "demo")
    write_results(project, plan)
    text = html(plan, collect_all(project, plan))
    parsed = outline(text)
    assert all(address.startswith(("#", "data:image/")) for address in parsed.loaded)
    assert len(set(parsed.ids)) == len(parsed.ids)
    inside = {unquote(link.removeprefix("#")) for link in parsed.links if link.startswith("#")}
    assert inside and inside <= set(parsed.ids)
    assert all(link.startswith(("#", "data:text/plain")) for link in parsed.links)


def test_the_page_answers_first_and_holds_tables_curves_classes_images_and_runs(project: Project) -> None:
    plan = resolve(project, "demo")
    write_results(project, plan)
    text = html(plan, collect_all(project, plan))
    heading = re.search(r"<h1>(.*?)</h1>", text)[1]
    assert heading == "U²PL (w/ CutMix) is <b>+18.0</b> mIoU above SupOnly"
    assert (
        "On shapes, with 60 of 480 images labelled, U²PL (w/ CutMix), the best of 4, reaches 65.0 % mIoU, "
        "18.0 above SupOnly (47.0), 1 seed." in text
    )
    assert text.index(heading) < text.index("<table") < text.index('id="gallery"') < text.index('id="runs"')
    words = outline(text).words
    assert "19 of 19" in words
    assert (
        words.count("whether that is more than chance") == 4
    )  # below the heading, and of each of three splits
    # A picture of gains; of three tables the seeds, and of each split mIoU, reliable share and accuracy.
    assert text.count('<svg role="img"') == 1 + 3 + (3 + 1 + 1) * 3
    assert text.count('class="heat sortable"') == 5
    # Two images of each of three splits: input, truth, and of four methods prediction and entropy.
    assert text.count("<img") == 3 * 2 * (2 + 2 * 4)
    assert text.count('<details class="card"') == 17  # the one at the default values stands in three tables


def test_a_cell_says_which_runs_it_opens_and_the_script_finds_all_it_draws_of_them(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    text = html(plan, collect_all(project, plan))
    known = facts_of(text)
    cells = re.findall(r'<a class="cell" href="#run-([^"]+)" data-contender="(\d+)">', text)
    assert len(cells) == 4
    for run, place in cells:
        opened = known["contenders"][int(place)]
        assert opened["runs"] == [unquote(run)] and opened["dataset"] == "camvid"
        found = known["runs"][unquote(run)]
        assert len(found["iou"]) == len(known["classes"][found["classes"]]) == len(found["confusion"]) == 4
        assert [epoch for epoch, _ in found["curves"]["val/miou"]] == list(range(1, 13))
    shares = known["runs"]["camvid-1_8-u2pl-s0"]["curves"]["train/reliable/share"]
    assert shares[0] == [2, pytest.approx(100 * (0.8 + 2 / 60), abs=0.01)]
    # Of each class's 80 + 10 i pixels, how many in a thousand.
    assert known["runs"]["camvid-1_8-u2pl-s0"]["confusion"][0] == [571, 71, 143, 214]


def test_what_the_script_knows_of_settings_is_enough_to_tell_two_runs_apart(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    path = project.root / "results/runs/camvid-1_8-mt-s0/metrics.json"
    path.write_text(path.read_text().replace('"lr": 0.01', '"lr": 0.5'))
    results = collect(project, plan, "table1").results
    usual = usual_settings(results)
    different = {result.method: settings_of(result, usual).different for result in results}
    assert different == {"suponly": [], "mt": [("recipe.lr", "0.5", "0.01")], "cutmix": [], "u2pl": []}
    known = facts_of(html(plan, collect_all(project, plan)))
    assert known["usual"] == usual
    assert {name: run["different"] for name, run in known["runs"].items() if run["different"]} == {
        "camvid-1_8-mt-s0": {"recipe.lr": "0.5"}
    }


def test_the_page_says_where_an_miou_is_over_fewer_classes(project: Project) -> None:
    plan = resolve(project, "demo", ["table1"])
    write_results(project, plan)
    text = html(plan, collect_all(project, plan))
    assert "reaches 63.0 % mIoU over 3 of 4 classes, 18.0 above SupOnly (45.0)" in text
    assert "shapes-1_16-mt-s0: 51.00 % over 3 of 4 classes (last of 12 epochs)" in text
    assert "shapes-1_8-mt-s0: 53.00 % (last of 12 epochs)" in text
    assert "mIoU over 3 of 4 classes (without ring)</p>" in text


def test_a_plan_of_several_data_sets_says_of_which_a_verdict_and_a_table_are(project: Project) -> None:
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
    paths = write(project, plan, collect_all(project, plan))
    text = (project.root / paths[0]).read_text(encoding="utf-8")
    assert "On camvid, with 60 of " in text
    assert "On facade, with 60 of " in text
    assert '<th scope="row">facade, 1/8 (60 labelled)</th>' in text
    assert '<a href="#table-streets">Streets</a>' in text and "<h2>Houses</h2>" in text
    assert {"table-streets", "table-houses"} <= set(outline(text).ids)


def test_the_page_says_what_runs_took_and_learned_from_and_how_classes_vary_over_seeds(
    project: Project,
) -> None:
    (project.pipelines / "plans/own.yaml").write_text(
        "{dataset: camvid, seeds: [0, 1], tables: {table1: {splits: {classic-1/8: 1/8}}}}"
    )
    plan = resolve(project, "own")
    write_results(project, plan)
    for folder in project.root.glob("results/runs/*-u2pl-*"):
        end = 50 if folder.name.endswith("s0") else 70
        history = folder / "history.csv"
        header, *lines = history.read_text().splitlines()
        anchors = [f"{line},{end * 10 if index == 11 else ''}" for index, line in enumerate(lines)]
        history.write_text("\n".join([f"{header},train/contrast/anchors", *anchors]))
        text = history.read_text().splitlines()
        last = text[-1].split(",")
        last[5] = str(end / 100)
        last[6] = ""
        history.write_text("\n".join([*text[:-1], ",".join(last)]))
    filled = collect(project, plan, "table1")
    (group,) = groups(filled)
    found = measured(group.title, group.runs)
    rows = dict(found.rows)
    assert rows["U²PL (w/ CutMix)"][found.heads.index("reliable pixels, %")] == "60.0 ± 14.1"
    assert rows["U²PL (w/ CutMix)"][found.heads.index("anchors a step")] == "600.0 ± 141.4"
    assert rows["SupOnly"][:3] == ["", "", ""]
    text = html(plan, [filled])
    assert "<td>60.0 ± 14.1</td>" in text and '<td class="missing">—</td>' in text
    (part,) = classes(filled)
    first, second = (run.metrics["iou"]["disk"] for run in group.runs["SupOnly"])
    mean, sd = part.rows["disk"][0]
    assert (mean, sd) == pytest.approx(((first + second) / 2, abs(first - second) / 2**0.5))
    assert sd > 0 and f"{mean:.1f}<small>± {sd:.1f}</small>" in text


def test_a_page_without_any_finished_run_says_so(project: Project) -> None:
    plan = resolve(project, "demo")
    paths = write(project, plan, collect_all(project, plan))
    text = (project.root / paths[0]).read_text()
    outline(text)
    assert "No run has finished yet." in text
    assert "19 results are planned" in text
    assert facts_of(text)["contenders"] == []
    assert all(examples.picture(project.root / path).shape[1] > 100 for path in paths[1:])


def test_a_label_cannot_smuggle_markup_into_the_page(project: Project) -> None:
    path = project.pipelines / "tables/table1.yaml"
    label = "</script><script>alert('1')</script>\\\"$x"
    path.write_text(path.read_text().replace("label: MT", f'label: "{label}"'))
    plan = street_plan(project)
    write_results(project, plan)
    text = html(plan, collect_all(project, plan))
    outline(text)
    assert text.count("<script") == 2 and "<script>alert" not in text  # what the page itself brings
    assert "&lt;script&gt;alert" in text
    assert "</script><script>alert('1')</script>\"$x" in [
        each["label"] for each in facts_of(text)["contenders"]
    ]


def test_the_same_results_give_the_same_page(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    assert html(plan, collect_all(project, plan)) == html(plan, collect_all(project, plan))


def test_results_without_history_samples_or_confusion_still_give_a_page(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    for pattern in ("history.csv", "confusion.csv", "*.prediction.png"):
        for file in project.root.rglob(pattern):
            file.unlink()
    text = html(plan, collect_all(project, plan))
    assert text.count('<svg role="img"') == 2  # gains and seeds, for which numbers are enough
    assert "<img" not in text
    assert {(run["confusion"], len(run["curves"])) for run in facts_of(text)["runs"].values()} == {(None, 0)}


def test_images_of_an_earlier_version_have_no_entropy_and_are_shown_without(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    for file in project.root.rglob("*.entropy.png"):
        file.unlink()
    (row, *_) = gallery.rows(collect_all(project, plan))
    assert {picture.kind for picture in row.pictures} == {"input", "truth", "prediction"}


def test_curves_have_points_only_where_an_epoch_was_validated(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    for file in project.root.rglob("history.csv"):
        rows = list(csv.DictReader(file.read_text().splitlines()))
        for row in rows:
            row["val/miou"] = row["val/miou"] if int(row["epoch"]) in (3, 7, 11) else ""
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    (panel,) = panels(collect(project, plan, "table1"), VALIDATION, charts.MIOU)
    assert {tuple(curve.epochs) for curve in panel.curves} == {(4, 8, 12)}  # counted from 1
    assert html(plan, collect_all(project, plan)).count('<svg role="img"') == 3 + 2


def test_runs_reported_by_their_best_epoch_are_compared_and_listed_by_it(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    for file in project.root.rglob("metrics.json"):
        metrics = json.loads(file.read_text())
        metrics["miou"]["reported"] = metrics["miou"]["best"]
        metrics["protocol"]["checkpoint"] = "best"
        metrics["flavor"] = "released"
        file.write_text(json.dumps(metrics))
    text = html(plan, collect_all(project, plan))
    assert "U²PL (w/ CutMix), the best of 4, reaches 52.2 % mIoU" in text
    assert "camvid-1_8-u2pl-s0: 52.25 % (best of 12 epochs)" in text
    assert "<span>last</span><span>51.00 %</span>" in text
    assert "<span>best</span><span>52.25 % (epoch 10)</span>" in text  # metrics.json counts from 0 and says 9
    assert "<span>flavour</span><span>released</span>" in text


def voc_tables(project: Project, text: str) -> list[TableResults]:
    (project.pipelines / "plans/own.yaml").write_text(text)
    plan = resolve(project, "own")
    write_results(project, plan)
    return collect_all(project, plan)


def test_the_picture_of_seeds_has_ours_and_the_papers_number_of_every_cell(project: Project) -> None:
    table1 = project.root / "pipelines/tables/table1.yaml"
    table1.write_text(
        table1.read_text() + "  - {label: Theirs, cited: true, paper: [57.60, 65.50, 69.14, 72.41, 73.23]}\n"
    )
    (filled,) = voc_tables(
        project, "{dataset: voc, seeds: [0, 1], tables: {table1: {splits: {classic-1/8: classic-1/8}}}}"
    )
    ((title, found),) = points(filled).items()
    assert title == "1/8 (183)"
    assert [point.label for point in found][2:] == ["CutMix", "U²PL (w/ CutMix)", "Theirs ‡"]
    assert found[0].sd == pytest.approx(8.31 / 2**0.5)
    assert (found[-1].numbers, found[-1].paper) == ((), 65.5)


def test_values_of_one_setting_run_along_an_axis_in_the_order_of_the_table(project: Project) -> None:
    unordered, ordered = voc_tables(project, "{dataset: voc, seeds: [0], tables: {table4: {}, table7: {}}}")
    assert swept_setting(unordered) is None  # between words there is no line
    assert swept_setting(ordered) == "alpha0"
    plan = resolve(project, "own")
    text = html(plan, [ordered])
    assert "mIoU by alpha0" in text
    shown = [word for word in re.findall(r">([^<>]+)</text>", text) if re.fullmatch(r"\d0 %", word)]
    assert shown == ["40 %", "30 %", "20 %", "10 %"]


def test_a_table_can_be_taken_from_the_page_without_the_files_beside_it(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    text = html(plan, collect_all(project, plan))
    files = dict(
        re.findall(r'<a download="([^"]+)" href="data:text/plain;charset=utf-8;base64,([^"]+)"', text)
    )
    assert list(files) == ["table1.md", "table1.csv", "table1.tex"]
    rows = list(csv.DictReader(base64.b64decode(files["table1.csv"]).decode().splitlines()))
    assert [row["row"] for row in rows] == ["SupOnly", "MT", "CutMix", "U²PL (w/ CutMix)"]
    assert r"\toprule" in base64.b64decode(files["table1.tex"]).decode()


def test_figures_take_their_ink_from_the_page_where_they_can_and_a_missing_one_is_named(
    project: Project, tmp_path: Path
) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    picture = next(project.root.rglob("*.input.png"))
    drawn = tmp_path / "drawn.png"
    drawn.write_bytes(picture.read_bytes())
    write_text(drawn.with_suffix(".svg"), '<svg xmlns="x"><g id="a"/><use href="#a"/></svg>')
    shown = [
        FigureFile("Figure 1", "As pixels.", picture),
        FigureFile("Figure 2", "As lines.", drawn),
        FigureFile("Figure 3", "Planned.", project.root / "none.png"),
    ]
    text = html(plan, collect_all(project, plan), shown)
    assert f'<img src="{examples.data_uri(picture)}" alt="Figure 1">' in text
    assert '<g id="figure1-a"/><use href="#figure1-a"/>' in text
    assert examples.data_uri(drawn) not in text.partition("Figure 1")[2]
    assert "<strong>Figure 3.</strong> Planned. Not made yet." in text


def test_the_gallery_names_the_colours_of_the_classes_it_knows(project: Project) -> None:
    plan = resolve(project, "demo", ["table1"])
    write_results(project, plan)
    (path, *_) = write(project, plan, collect_all(project, plan))
    text = (project.root / path).read_text(encoding="utf-8")
    legend = text.partition('<div class="legend classes" data-dataset="shapes">')[2].partition("</div>")[0]
    assert re.findall(r"</i>(\w+)</span>", legend)[:2] == ["background", "disk"]
    assert re.match(r"\s*<span><i style=\"background: #000000\">", legend)


def test_the_contact_sheet_has_a_row_a_split_and_a_column_a_method(project: Project) -> None:
    plan = resolve(project, "demo", ["table1"])
    write_results(project, plan)
    found = list(gallery.sheet_rows(collect(project, plan, "table1")))
    assert [row.label for row in found] == [
        "1/16 (30 labelled)",
        "1/8 (60 labelled)",
        "1/4 (120 labelled)",
    ]
    assert list(found[0].pictures) == ["Input", "Truth", "SupOnly", "MT", "CutMix", "U²PL (w/ CutMix)"]
    assert {row.pictures["Input"].name for row in found} == {f"000{i}.input.png" for i in (1, 2, 3)}
    write(project, plan, collect_all(project, plan))
    height, width, _ = examples.picture(project.root / "reports/overview/examples.png").shape
    assert width > 1.5 * height


def test_of_one_split_there_are_several_images_each_once(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    filled = collect(project, plan, "table1")
    assert [row.image for row in gallery.rows_of(filled, 3)] == ["0001", "0002", "0003"]
    for path in project.root.rglob("0002.input.png"):
        path.unlink()
    assert [row.image for row in gallery.rows_of(filled, 3)] == ["0001", "0003"]
    assert len(gallery.rows([filled, filled])) == 2  # what another table shows too stands once


FOLDED = """
seeds: [0]
tables:
  table1: {dataset: shapes, splits: {classic-1/8: 1/8, classic-1/4: 1/4}}
  mine: {table: own, dataset: shapes, splits: {classic-1/8: 1/8}}
  table4: {dataset: shapes, splits: {blender-1/8: 1/8}}
  elsewhere: {table: table1, dataset: camvid, splits: {classic-1/8: 1/8}}
"""
OWN = """
title: Table 9. My methods
caption: Mine.
corner: Method
dataset: voc
columns: [{split: classic-1/8, label: 1/8}]
rows:
  - {label: SupOnly, method: suponly}
  - {label: CutMix, method: cutmix}
  - {label: MT, method: mt, set: {ema_decay: 0.5}}
"""


def test_tables_that_repeat_each_others_runs_on_one_data_set_are_one_section(project: Project) -> None:
    (project.pipelines / "tables/own.yaml").write_text(OWN)
    (project.pipelines / "plans/own.yaml").write_text(FOLDED)
    plan = resolve(project, "own")
    write_results(project, plan)
    (mine,) = project.root.glob("results/runs/shapes-1_8-mt-ema_decay=0.5-s0/metrics.json")
    mine.write_text(re.sub(r'"reported": [\d.]+', '"reported": 99.0', mine.read_text()))
    tables = collect_all(project, plan)
    found = {place.main.name: [other.name for other in place.others] for place in folded(plan, tables)}
    assert found == {"table1": ["mine"], "table4": [], "elsewhere": []}
    text = html(plan, tables)
    parsed = outline(text)
    assert {"table-table1", "table-mine", "table-table4", "table-elsewhere"} <= set(parsed.ids)
    assert re.search(r'<details class="other" id="table-mine">\s*<summary>[^<]*My methods: shares runs', text)
    # A cell of the folded table opens the same contender as the cell that shows the same run.
    places = re.findall(r'href="#run-(shapes-1_8-cutmix-s0)" data-contender="(\d+)"', text)
    assert len(places) > 1 and len(set(places)) == 1
    # What only the folded table has stands in the answer, the curves and the pictures, under a name of its own.
    assert "MT (Table 9) is <b>+" in re.search(r"<h1>(.*?)</h1>", text)[1]
    first = text.partition('id="table-table1"')[2].partition("<section")[0]
    assert "</svg>MT (Table 9)</span>" in first and '<th scope="col">MT (Table 9)</th>' in first
    assert "<figcaption>MT (Table 9)</figcaption>" in text


def test_two_tables_with_equal_labels_are_told_apart(project: Project) -> None:
    (project.pipelines / "plans/own.yaml").write_text(
        """
seeds: [0]
tables:
  one: {table: table1, title: First, dataset: shapes, splits: {classic-1/8: 1/8}, set: {lr: 0.5}}
  two: {table: table1, title: Second, dataset: shapes, splits: {classic-1/8: 1/8}}
"""
    )
    plan = resolve(project, "own")
    write_results(project, plan)
    known = facts_of(html(plan, collect_all(project, plan)))
    labels = [each["label"] for each in known["contenders"]]
    assert len(set(labels)) == len(labels) == 8
    assert {"MT (First)", "MT (Second)"} <= set(labels)
    (first, *_) = gallery.rows(collect_all(project, plan))
    made = {picture.run for picture in first.pictures if picture.kind == "prediction"}
    assert len(made) == 8  # each run's own prediction of one image


@pytest.mark.parametrize("name", ["facts", "gallery", "runs", "answer", "figures"])
def test_a_table_may_be_called_like_a_part_of_the_page(project: Project, name: str) -> None:
    (project.pipelines / "plans/own.yaml").write_text(
        f"{{seeds: [0], tables: {{{name}: {{table: table1, dataset: shapes, splits: {{classic-1/8: 1/8}}}}}}}}"
    )
    plan = resolve(project, "own")
    write_results(project, plan)
    parsed = outline(html(plan, collect_all(project, plan)))
    assert len(set(parsed.ids)) == len(parsed.ids)


def test_words_of_the_plan_are_text_wherever_they_stand(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    drawn = project.root / "drawn.png"
    drawn.write_bytes(next(project.root.rglob("*.input.png")).read_bytes())
    write_text(drawn.with_suffix(".svg"), '<svg xmlns="x"><g id="a"/><use href="#a"/></svg>')
    shown = [FigureFile('A "quoted" & <b>', "<i>", drawn)] * 2
    parsed = outline(html(plan, collect_all(project, plan), shown))
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert 'A "quoted" & <b>.' in parsed.words


def test_a_long_label_and_one_in_letters_that_the_font_lacks_leave_room_for_the_numbers(
    project: Project,
) -> None:
    table = project.pipelines / "tables/table1.yaml"
    long = "a method with a name that somebody gave it who wanted to say all of its settings at once and more"
    text = (
        table.read_text().replace("label: MT", f"label: {long}").replace("label: CutMix", "label: 混合する")
    )
    table.write_text(text)
    plan = street_plan(project)
    write_results(project, plan)
    text = html(plan, collect_all(project, plan))
    drawn = re.findall(r"<svg role=.*?</svg>", text, re.DOTALL)[0]
    assert "…</text>" in drawn and "混合する" in drawn
    assert f'<th scope="row">{long}</th>' in text  # the table has all of it


def test_a_run_that_went_wrong_has_no_points_where_it_was_infinite(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    path = project.root / "results/runs/camvid-1_8-u2pl-s0/history.csv"
    header, first, *rest = path.read_text().splitlines()
    cells = first.split(",")
    cells[2] = "inf"
    path.write_text("\n".join([header, ",".join(cells), *rest]))
    known = facts_of(html(plan, collect_all(project, plan)))
    assert known["runs"]["camvid-1_8-u2pl-s0"]["curves"]["val/miou"][0][0] == 2


def test_an_imported_run_says_what_is_not_known_of_it(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    path = project.root / "results/runs/camvid-1_8-u2pl-s0/metrics.json"
    metrics = json.loads(path.read_text())
    metrics |= {"labeled": None, "unlabeled": None, "images_per_second": 0.0}
    metrics["miou"] |= {"last": None, "best": None, "best_epoch": None}
    path.write_text(json.dumps(metrics))
    text = html(plan, collect_all(project, plan))
    card = text.partition('id="run-camvid-1_8-u2pl-s0"')[2].partition("</details>")[0]
    assert "None" not in card and card.count("not known") == 4


def test_every_pair_of_cells_of_a_split_is_tested_over_the_seeds_they_share(project: Project) -> None:
    (filled,) = voc_tables(
        project, "{dataset: voc, seeds: [0, 1, 2], tables: {table1: {splits: {classic-1/8: classic-1/8}}}}"
    )
    for name, values in {"cutmix": (50.0, 52.0, 51.0), "u2pl": (53.0, 54.0, 54.5)}.items():
        for seed, value in enumerate(values):
            (path,) = project.root.glob(f"results/runs/*-{name}-s{seed}/metrics.json")
            metrics = json.loads(path.read_text())
            metrics["miou"]["reported"] = value
            path.write_text(json.dumps(metrics))
    (filled,) = collect_all(project, resolve(project, "own"))
    found = contenders([filled])
    labels = [each.label for each in found]
    known = script_facts(found, {}, {run.name: {} for each in found for run in each.runs})
    one, other = sorted((labels.index("CutMix"), labels.index("U²PL (w/ CutMix)")))
    ((_, _, p),) = [each for each in known["p"] if each[:2] == [one, other]]
    from scipy.stats import ttest_rel

    assert p == pytest.approx(ttest_rel([50.0, 52.0, 51.0], [53.0, 54.0, 54.5]).pvalue, rel=1e-2)
    assert len(known["p"]) <= 6


@pytest.mark.parametrize("module", ["render", "write"])
def test_the_page_imports_no_more_than_it_needs(module: str) -> None:
    unwanted = ("torch", "mlflow", "dvc")
    code = f"import sys, u2pl.page.{module}; sys.exit(any(m in sys.modules for m in {unwanted}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
