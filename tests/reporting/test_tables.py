import csv
import io
import json
import re

import pytest
from fabricated import REPOSITORY, street_plan, write_result, write_results

from u2pl.errors import UsageError, UserError
from u2pl.escaping import TEX, tex
from u2pl.files import sha256
from u2pl.pipeline import ActivePlan, resolve
from u2pl.project import Project
from u2pl.reporting.results import collect
from u2pl.reporting.table import TableText, latex, long_csv, markdown, write


def plan_file(project: Project, name: str, text: str) -> ActivePlan:
    (project.pipelines / "plans" / f"{name}.yaml").write_text(text)
    return resolve(project, name)


def view(project: Project, plan: ActivePlan, table: str) -> TableText:
    return TableText(collect(project, plan, table))


def without_marks(text: str) -> str:
    return re.sub("<sup>.*?</sup>", "", text)


def test_a_cell_is_the_reported_miou_and_the_best_of_its_split_is_bold(project: Project) -> None:
    plan = resolve(project, "demo")
    write_results(project, plan)
    text = markdown(view(project, plan, "table1"))
    assert "| Method | 1/16 (30) | 1/8 (60) | 1/4 (120) |" in text
    assert "| MT | 51.00 | 53.00 | 55.00 |" in without_marks(text)
    assert "| U²PL (w/ CutMix) | **63.00** | **65.00** | **67.00** |" in without_marks(text)


def test_in_a_table_whose_rows_are_splits_the_best_of_a_row_is_bold(project: Project) -> None:
    plan = resolve(project, "demo")
    write_results(project, plan)
    table4, table7 = (without_marks(markdown(view(project, plan, name))) for name in ("table4", "table7"))
    assert "| 1/8 (60) | **60.50** | 59.50 | 58.50 |" in table4
    assert "| 1/8 (60) | **60.50** | 59.50 | 58.50 | 57.50 |" in table7


def test_a_table_without_results_has_a_dash_in_every_cell_and_says_so(project: Project) -> None:
    text = markdown(view(project, resolve(project, "demo"), "table1"))
    assert "| MT | — | — | — |" in text
    assert "no run has finished yet" in text


def test_a_table_bound_to_another_data_set_drops_cited_rows_and_the_papers_numbers(project: Project) -> None:
    text = markdown(view(project, resolve(project, "demo"), "table1"))
    assert "PseudoSeg" not in text
    assert "67.98" not in text


@pytest.fixture
def voc(project: Project) -> TableText:
    """Table 1 on the paper's data set: of ours, U²PL has three seeds of 1/16 and one of 1/8."""
    table1 = project.root / "pipelines/tables/table1.yaml"
    table1.write_text(
        table1.read_text() + "  - {label: Theirs, cited: true, paper: [57.60, 65.50, 69.14, 72.41, 73.23]}\n"
    )
    plan = plan_file(project, "own", "{dataset: voc, seeds: [0, 1, 2], tables: {table1: {}}}")
    plan.write(project)
    for split, seed, last in (("1_16", 0, 66.0), ("1_16", 1, 67.0), ("1_16", 2, 68.0), ("1_8", 0, 70.0)):
        folder = project.root / f"results/runs/voc-classic-{split}-u2pl-s{seed}"
        write_result(
            folder,
            last=last,
            split=f"classic-{split.replace('_', '/')}",
            method="u2pl",
            seed=seed,
            dataset="voc",
        )
    return view(project, plan, "table1")


def test_on_the_papers_data_set_a_cell_shows_ours_the_papers_number_and_the_difference(
    voc: TableText,
) -> None:
    text = markdown(voc)
    assert "67.00 ± 1.00 (paper **67.98**, −0.98)" in text
    assert "| — (paper **73.66**) |" in text
    assert "1/16 (92)" in text
    assert r"67.00 $\pm$ 1.00 {\footnotesize (paper \textbf{67.98}, $-$0.98)}" in latex(voc)


def test_a_cell_of_one_seed_is_marked_as_such(voc: TableText) -> None:
    assert "70.00<sup>†</sup> (paper **69.15**, +0.85)" in markdown(voc)
    assert "<sup>†</sup> one seed: its spread is not known" in markdown(voc)
    assert r"70.00\textsuperscript{$\dagger$}" in latex(voc)


def test_what_is_only_cited_has_no_number_of_ours_and_is_marked(voc: TableText) -> None:
    assert "| Theirs ‡ | — (paper 57.60) | — (paper 65.50) |" in markdown(voc)
    assert "<sup>‡</sup> cited: the paper's number, for which nothing is run here" in markdown(voc)
    assert r"Theirs $\ddagger$ & --- {\footnotesize (paper 57.60)}" in latex(voc)
    cited = [line for line in csv.DictReader(io.StringIO(long_csv(voc))) if line["row"] == "Theirs"]
    assert {(line["mean"], line["source"]) for line in cited} == {("", "cited")}
    assert cited[0]["paper"] == "57.6000"


def test_what_must_be_known_of_a_method_stands_under_its_numbers_on_any_data_set(project: Project) -> None:
    text = "{dataset: shapes, seeds: [0], tables: {methods: {splits: {classic-1/8: 1/8}}}}"
    plan = plan_file(project, "own", text)
    write_results(project, plan)
    table = markdown(view(project, plan, "methods"))
    (mark,) = re.findall(
        r"<sup>(\w+)</sup> PC²Seg is a reconstruction, not verified against the authors' code", table
    )
    line = next(line for line in table.splitlines() if line.startswith("| PC²Seg |"))
    assert f"{mark}," in line or f"{mark}<" in line
    assert mark not in next(line for line in table.splitlines() if line.startswith("| MT |"))


def test_missing_cells_are_counted_and_the_first_are_named(voc: TableText) -> None:
    line = (
        "Missing: 18 of 20 cells (SupOnly, 1/16; SupOnly, 1/8; SupOnly, 1/4; SupOnly, 1/2; SupOnly, Full; "
        "MT, 1/16; MT, 1/8; MT, 1/4; and 10 more)."
    )
    assert line in markdown(voc)
    assert line in latex(voc)


def test_a_cell_with_some_of_its_seeds_is_named_and_many_are_counted(
    project: Project, voc: TableText
) -> None:
    line = "Missing seeds: 1 of 20 cells (U²PL (w/ CutMix), 1/8: 1 of 3 seeds)."
    assert line in markdown(voc)
    assert line.replace("²", r"\textsuperscript{2}") in latex(voc)
    plan = plan_file(
        project, "two", "{dataset: shapes, seeds: [0, 1], tables: {table1: {splits: {classic-1/8: 1/8}}}}"
    )
    write_results(project, plan)
    assert "Missing" not in markdown(view(project, plan, "table1"))
    for path in project.root.glob("results/runs/shapes-*-s1/metrics.json"):
        path.unlink()
    table = view(project, plan, "table1")
    assert table.missing.startswith("Missing seeds: 4 of 4 cells (SupOnly, 1/8: 1 of 2 seeds; MT, 1/8: 1 of ")
    assert "1 of 2 seeds" in table.caption


def test_a_departure_from_the_papers_recipe_is_a_footnote_beside_a_number_of_the_paper(
    project: Project, voc: TableText
) -> None:
    path = project.root / "results/runs/voc-classic-1_8-u2pl-s0/metrics.json"
    metrics = json.loads(path.read_text())
    metrics["recipe"]["micro_batch"] = 4
    path.write_text(json.dumps(metrics))
    table = view(project, ActivePlan.read(project), "table1")
    text = markdown(table)
    assert "<sup>a</sup> batch norm over 4 images instead of 16" in text
    assert "70.00<sup>a,†</sup> (paper **69.15**" in text
    (line,) = (line for line in text.splitlines() if line.startswith("Unlike the paper, in every cell:"))
    assert "epochs 12 instead of 80" in line
    lines = {line["column"]: line for line in csv.DictReader(io.StringIO(long_csv(table))) if line["run"]}
    assert "batch norm over 4 images" in lines["1/8"]["departures"]
    assert "batch norm over" not in lines["1/16"]["departures"]


def change(project: Project, run: str, **entries: object) -> None:
    """Replace entries of the metrics of a run of table 1."""
    path = project.root / f"results/runs/{run}/metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_another_split_than_the_papers_is_a_footnote_and_the_label_says_our_number_of_images(
    project: Project, voc: TableText
) -> None:
    change(project, "voc-classic-1_8-u2pl-s0", labeled=184, split_source="seeded 2")
    table = view(project, ActivePlan.read(project), "table1")
    text = markdown(table)
    assert "| Method | 1/16 (92) | 1/8 (184) | 1/4 (366) |" in text
    assert "70.00<sup>a,b,†</sup> (paper **69.15**" in text
    assert "<sup>a</sup> 184 labelled images instead of 183" in text
    assert "<sup>b</sup> split drawn with seed 2 instead of the authors' lists" in text
    (line,) = (line for line in csv.DictReader(io.StringIO(long_csv(table))) if line["labeled"] == "184")
    assert line["departures"].startswith("184 labelled images instead of 183; split drawn with seed 2")


def test_a_table_of_drawn_splits_alone_departs_from_the_paper_in_every_cell(
    project: Project, voc: TableText
) -> None:
    for path in project.root.rglob("metrics.json"):
        change(project, path.parent.name, split_source="seeded 2")
    text = markdown(view(project, ActivePlan.read(project), "table1"))
    (line,) = (line for line in text.splitlines() if line.startswith("Unlike the paper, in every cell:"))
    assert "split drawn with seed 2 instead of the authors' lists" in line
    assert "<sup>a</sup>" not in text


def test_where_all_labels_are_kept_no_list_is_another_than_the_authors(project: Project) -> None:
    plan = plan_file(
        project, "own", "{dataset: voc, seeds: [0], tables: {table1: {splits: {classic-full: classic-full}}}}"
    )
    write_results(project, plan, labeled=1464, split_source="seeded 0")
    assert "authors' lists" not in markdown(view(project, plan, "table1"))


def test_departures_are_not_asked_for_where_the_paper_has_no_number(project: Project, voc: TableText) -> None:
    plan = plan_file(
        project, "own", "{dataset: voc, seeds: [0], tables: {table1: {splits: {classic-1/8: 1/8}}}}"
    )
    write_results(project, plan)
    assert "Unlike the paper" not in markdown(view(project, plan, "table1"))


def test_the_caption_says_how_many_images_a_step_takes(project: Project) -> None:
    plan = street_plan(project)
    write_results(project, plan)
    text = markdown(view(project, plan, "table1"))
    assert "; 8 labelled + 8 unlabelled images a step; 1 seed." in text
    assert "<sup>b</sup> 8 labelled images a step" in text


def test_several_seeds_give_mean_and_sample_deviation(project: Project) -> None:
    plan = plan_file(
        project, "two", "{dataset: shapes, seeds: [0, 1], tables: {table1: {splits: {classic-1/8: 1/8}}}}"
    )
    for seed, last in enumerate((50.0, 52.0)):
        folder = project.root / f"results/runs/shapes-1_8-mt-s{seed}"
        write_result(folder, last=last, split="1/8", method="mt", seed=seed)
    table = view(project, plan, "table1")
    assert "51.00 ± 1.41" in markdown(table)
    assert "2 seeds" in table.caption


def test_a_cell_measured_in_another_way_carries_a_mark_that_a_footnote_explains(project: Project) -> None:
    plan = resolve(project, "demo", ["table1"])
    write_results(project, plan)
    path = project.root / "results/runs/shapes-1_8-mt-s0/metrics.json"
    metrics = json.loads(path.read_text()) | {"split_source": "published list"}
    path.write_text(json.dumps(metrics))
    text = markdown(view(project, plan, "table1"))
    assert "53.00<sup>d,†</sup>" in text
    assert "<sup>d</sup> split published list" in text
    assert "<sup>a</sup> whole image, student network, last checkpoint" in text


def test_a_mean_over_fewer_classes_is_said_by_mark_in_the_caption_and_in_the_csv(project: Project) -> None:
    plan = resolve(project, "demo", ["table1"])
    write_results(project, plan)  # in those of 1/16 the class ring occurs nowhere
    table = view(project, plan, "table1")
    said = "mIoU over 3 of 4 classes (without ring)"
    (mark,) = (mark for text, mark in table.footnotes.items() if text == said)
    assert f"<sup>{mark}</sup> {said}" in markdown(table) and said not in table.caption
    assert rf"\textsuperscript{{{mark}}}~{said}" in latex(table)
    rows = next(line for line in markdown(table).splitlines() if line.startswith("| MT |"))
    assert [mark in cell.partition("<sup>")[2] for cell in rows.split("|")[2:5]] == [True, False, False]
    lines = [line for line in csv.DictReader(io.StringIO(long_csv(table))) if line["run"]]
    assert {line["classes"] for line in lines if line["split"] == "1/16"} == {said}
    assert {line["classes"] for line in lines if line["split"] != "1/16"} == {"mIoU over all classes"}
    for path in project.root.glob("results/runs/*/metrics.json"):
        metrics = json.loads(path.read_text())
        metrics["iou"]["ring"] = metrics["iou"]["disk"] if "1_8" in path.parent.name else None
        path.write_text(json.dumps(metrics))
    table = view(project, plan, "table1")
    assert said in table.caption and "mIoU over all classes" in table.footnotes


def test_a_cell_is_the_mean_of_what_its_runs_are_reported_by(project: Project) -> None:
    plan = plan_file(
        project, "two", "{dataset: shapes, seeds: [0, 1], tables: {table1: {splits: {classic-1/8: 1/8}}}}"
    )
    for seed, reported in enumerate((50.0, 52.0)):
        folder = project.root / f"results/runs/shapes-1_8-mt-s{seed}"
        miou = {"reported": reported, "last": 40.0, "best": reported, "best_epoch": 3}
        protocol = {"evaluation": "whole image", "network": "teacher", "checkpoint": "best"}
        write_result(folder, last=40.0, split="1/8", method="mt", seed=seed, miou=miou, protocol=protocol)
    table = view(project, plan, "table1")
    assert "51.00 ± 1.41" in markdown(table)
    assert "whole image, teacher network, best checkpoint" in table.caption
    lines = [line for line in csv.DictReader(io.StringIO(long_csv(table))) if line["run"]]
    assert [(line["reported"], line["last"], line["best"], line["mean"]) for line in lines] == [
        ("50.0000", "40.0000", "50.0000", "51.0000"),
        ("52.0000", "40.0000", "52.0000", "51.0000"),
    ]


def test_a_cell_with_fewer_seeds_than_the_table_says_how_many(project: Project) -> None:
    plan = plan_file(
        project, "two", "{dataset: shapes, seeds: [0, 1], tables: {table1: {splits: {classic-1/8: 1/8}}}}"
    )
    write_results(project, plan)
    (project.root / "results/runs/shapes-1_8-mt-s1/metrics.json").unlink()
    assert "| MT | 47.00<sup>†</sup> |" in markdown(view(project, plan, "table1"))


def test_the_csv_has_a_line_a_run_with_everything_known_of_it(project: Project) -> None:
    plan = resolve(project, "demo", ["table7"])
    write_results(project, plan)
    lines = list(csv.DictReader(io.StringIO(long_csv(view(project, plan, "table7")))))
    assert [line["column"] for line in lines] == ["40 %", "30 %", "20 %", "10 %"]
    first = lines[0]
    assert (first["last"], first["best"], first["mean"], first["seeds"]) == (
        "60.5000",
        "61.7500",
        "60.5000",
        "1",
    )
    assert (first["split_source"], first["labeled"], first["fingerprint"]) == (
        "seeded 2",
        "60",
        sha256("0u2pl")[:16],
    )


def test_the_csv_has_what_a_run_took_and_what_it_learned_from(project: Project) -> None:
    plan = resolve(project, "demo", ["table1"])
    write_results(project, plan)
    for name, values in (("u2pl", "0.5,0.9,0.25,800,6.5,1.5"), ("suponly", ",,,,,1.25")):
        (project.root / f"results/runs/shapes-1_8-{name}-s0/history.csv").write_text(
            "epoch,step,train/reliable/share,train/reliable/accuracy,train/all_classes/bank/false,"
            "train/contrast/anchors,train/contrast/anchor_classes,memory/peak_gib\n"
            f"0,50,0.1,0.2,0.3,4,5,0.5\n1,100,{values}\n"
            if name == "u2pl"
            else f"epoch,step,memory/peak_gib\n1,100,{values.rpartition(',')[2]}\n"
        )
    lines = csv.DictReader(io.StringIO(long_csv(view(project, plan, "table1"))))
    found = {line["method"]: line for line in lines if line["split"] == "1/8"}
    keys = ("reliable_share", "reliable_accuracy", "false_negatives", "anchors", "anchor_classes")
    assert [found["u2pl"][key] for key in keys] == ["50.0000", "90.0000", "25.0000", "800.0000", "6.5000"]
    assert [found["suponly"][key] for key in keys] == [""] * 5
    assert [found["suponly"][key] for key in ("seconds", "seconds_per_step", "memory_gib")] == [
        "34.5000",
        "0.0575",
        "1.2500",
    ]


def test_latex_escapes_percent_signs_and_writes_symbols_as_commands(project: Project) -> None:
    text = latex(view(project, resolve(project, "demo"), "table7"))
    assert r"Labelled & 40 \% & 30 \% & 20 \% & 10 \% \\" in text
    assert r"$\alpha$$_0$" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1


def test_latex_knows_every_character_of_the_pipelines_and_of_our_own_words() -> None:
    pipelines = sorted((REPOSITORY / "pipelines").rglob("*.yaml"))
    own = [REPOSITORY / f"u2pl/{name}.py" for name in ("reporting/table", "reporting/results")]
    own.append(REPOSITORY / "u2pl/pipeline/departures.py")
    text = "".join(path.read_text(encoding="utf-8") for path in [*pipelines, *own])
    assert {character for character in text if not character.isascii()} <= TEX.keys()
    assert tex("10⁻⁵ < α₀") == "10$^{-}$$^5$ $<$ $\\alpha$$_0$"


def test_writing_a_table_gives_three_files_under_the_plans_reports_folder(project: Project) -> None:
    plan = street_plan(project)
    paths = write(project, plan.reports, collect(project, plan, "1"))
    assert paths == [f"reports/camvid/tables/table1.{suffix}" for suffix in ("md", "csv", "tex")]
    assert all((project.root / path).stat().st_size for path in paths)


def test_a_damaged_result_is_refused_with_the_command_that_mends_it(project: Project) -> None:
    plan = resolve(project, "demo")
    write_results(project, plan)
    (project.root / "results/runs/shapes-1_8-mt-s0/metrics.json").write_text('{"miou":')
    with pytest.raises(UserError, match="u2pl evaluate shapes-1_8-mt-s0"):
        collect(project, plan, "table1")


def test_a_table_that_is_not_in_the_plan_is_refused(project: Project) -> None:
    with pytest.raises(UsageError, match="Did you mean 'table4'"):
        collect(project, resolve(project, "demo"), "tabel4")


def test_a_plan_older_than_its_table_is_refused(project: Project) -> None:
    plan = resolve(project, "demo")
    path = project.pipelines / "tables/table1.yaml"
    path.write_text(path.read_text().replace("label: MT", "label: Mean Teacher"))
    with pytest.raises(UserError, match="u2pl plan demo"):
        collect(project, plan, "table1")


def test_a_default_that_changes_moves_no_value_of_a_table(project: Project) -> None:
    """A cell's stage is named by its value, also where that is the default."""
    plan = resolve(project, "demo", ["table7"])
    write_results(project, plan)
    assert "60.50" in markdown(view(project, plan, "table7"))
    params = project.params.read_text(encoding="utf-8")
    project.params.write_text(params.replace("alpha0: 0.2", "alpha0: 0.35"), encoding="utf-8")
    assert resolve(project, "demo", ["table7"]) == plan
    (cell,) = (each for each in collect(project, plan, "table7").cells if each.cell.column == "20 %")
    assert cell.results[0].folder.name == "shapes-1_8-u2pl-alpha0=0.2-s0"
    assert "60.50" in markdown(view(project, plan, "table7"))
