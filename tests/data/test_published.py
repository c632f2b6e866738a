from collections import Counter
from pathlib import Path

import pytest
from data import miniature
from data.serving import serving

from u2pl.data import audit, published, splits
from u2pl.data.prepare import prepare
from u2pl.errors import UsageError, UserError
from u2pl.project import Project

COPIES = Path(__file__).parents[3] / "shared" / "splits"
needs_copies = pytest.mark.skipif(
    not COPIES.is_dir(), reason="needs copies of the published lists in ../shared/splits"
)


def silent(*_: object) -> None:
    pass


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """Miniature lists of the authors, in a folder to serve."""
    miniature.serve_lists(tmp_path / "served" / "lists")
    return tmp_path / "served"


def test_every_published_split_of_the_paper_is_known() -> None:
    known = published.families()["u2pl"].data_sets
    assert {name: split.images for name, split in known["voc"].splits.items()} == {
        **{
            "classic-1/16": 92,
            "classic-1/8": 183,
            "classic-1/4": 366,
            "classic-1/2": 732,
            "classic-full": 1464,
        },
        **{"blender-1/16": 662, "blender-1/8": 1323, "blender-1/4": 2646, "blender-1/2": 5291},
    }
    assert {name: split.images for name, split in known["cityscapes"].splits.items()} == {
        "1/16": 186,
        "1/8": 372,
        "1/4": 744,
        "1/2": 1488,
    }


def test_the_names_of_published_splits_are_names_of_splits() -> None:
    for family in published.families().values():
        for data_set in family.data_sets.values():
            assert all(splits.parse(name).published == name for name in data_set.splits)


def test_a_list_is_fetched_once_and_kept(
    lists: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(lists) as server:
        miniature.patch(monkeypatch, lists, server.address)
        found, known = published.read(project, "u2pl", "voc", "classic-1/4", silent)
        assert known.images == 2 and found.labeled == miniature.LABELED["classic-1/4"]
        assert len(found.unlabeled) == 18
        asked = len(server.requests)
    # The server is gone.
    assert published.read(project, "u2pl", "voc", "classic-1/4", silent)[0] == found and asked == 2


def test_offline_the_address_the_place_for_a_copy_and_the_alternatives_are_said(
    lists: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(lists) as server:
        miniature.patch(monkeypatch, lists, server.address)
        address = server.address
    with pytest.raises(UserError) as error:
        published.read(project, "u2pl", "voc", "classic-1/4", silent)
    said = str(error.value)
    assert f"{address}/lists/pascal/classic-1_4/labeled.txt" in said
    assert str(project.root / "data/lists/u2pl/pascal/classic-1_4/labeled.txt") in said
    assert "--source seeded" in said and "--source FILE" in said


def test_a_manual_copy_does_also_with_the_line_ends_of_windows(
    lists: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    miniature.patch(monkeypatch, lists, "http://127.0.0.1:9")
    for part in ("labeled", "unlabeled"):
        place = project.root / f"data/lists/u2pl/pascal/classic-1_4/{part}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        content = (lists / f"lists/pascal/classic-1_4/{part}.txt").read_bytes()
        place.write_bytes(content.replace(b"\n", b"\r\n"))
    found, _ = published.read(project, "u2pl", "voc", "classic-1/4", silent)
    assert found.labeled == miniature.LABELED["classic-1/4"]


def test_a_list_that_is_not_the_published_one_is_refused(
    lists: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(lists) as server:
        miniature.patch(monkeypatch, lists, server.address)
        path = lists / "lists/pascal/classic-1_4/labeled.txt"
        path.write_text(path.read_text().replace("2007_000000", "2007_000007"))
        with pytest.raises(UserError, match="sha256"):
            published.read(project, "u2pl", "voc", "classic-1/4", silent)
    assert not (project.root / "data/lists/u2pl/pascal/classic-1_4/labeled.txt").exists()


@pytest.mark.parametrize(
    ("dataset", "split", "said"),
    [("voc", "classic-1/5", "Did you mean 'classic-1/"), ("camvid", "1/8", "only for voc, cityscapes")],
)
def test_a_list_that_does_not_exist_is_an_error_that_names_those_that_do(
    dataset: str, split: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        published.find("u2pl", dataset, split)


# ---- the published lists themselves ------------------------------------------------------------------------


def with_copies(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.root / "data").mkdir()
    (project.root / "data/lists").symlink_to(COPIES.resolve())


@needs_copies
@pytest.mark.parametrize("source", ["u2pl", "unimatch"])
def test_every_sum_is_that_of_the_published_file_and_every_list_is_sound(
    project: Project, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_copies(project, monkeypatch)
    audits = list(audit.published_lists(project, source, None, silent))
    assert not [each.problems for each in audits if each.problems]
    assert {each.labeled + each.unlabeled for each in audits if each.dataset == "voc"} == {10582}
    assert {each.labeled + each.unlabeled for each in audits if each.dataset == "cityscapes"} == {2975}
    assert Counter(each.val for each in audits if each.dataset == "voc").keys() == {1449}
    assert not any(each.overlap or each.leaked or each.repeated for each in audits)


@needs_copies
def test_the_authors_blender_lists_hold_the_fine_annotation_and_the_others_do_not(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_copies(project, monkeypatch)
    shares = {
        source: {each.split: each for each in audit.published_lists(project, source, "voc", silent)}
        for source in ("u2pl", "unimatch")
    }
    blender = [f"blender-1/{k}" for k in (16, 8, 4, 2)]
    assert [round(shares["u2pl"][s].fine or 0, 3) for s in blender] == [1.0, 1.0, 0.553, 0.277]
    assert [round(shares["unimatch"][s].fine or 0, 3) for s in blender[:3]] == [0.14, 0.146, 0.147]
    assert {round(each.fine_uniform or 0, 3) for each in shares["u2pl"].values()} == {0.138}
    assert all(each.fine == 1 for each in shares["u2pl"].values() if each.split.startswith("classic"))


# ---- lists in use ------------------------------------------------------------------------------------------


def test_lists_of_ones_own_are_matched_and_validated(project: Project, tiny: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("images/03.png masks/03.png\n05\n\n07.png\n")
    prepared = prepare(project, str(tiny / "tiny.yaml"), "mine", source=[str(mine)])
    assert (prepared.folder / "labeled.txt").read_text().split() == ["03", "05", "07"]
    assert len((prepared.folder / "unlabeled.txt").read_text().split()) == 13
    assert prepared.manifest["source"] == "files" and "overlap" not in prepared.manifest


def test_every_mistake_in_lists_of_ones_own_is_told_at_once(
    project: Project, tiny: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "labeled.txt", tmp_path / "unlabeled.txt"
    first.write_text("00\n00\n17\nnowhere\n")
    second.write_text("00\n01\n")
    with pytest.raises(UserError) as error:
        prepare(project, str(tiny / "tiny.yaml"), "mine", source=[str(first), str(second)])
    said = str(error.value)
    for part in (
        "no image of the data set: 1 (nowhere)",
        "twice in labeled: 1 (00)",
        "in labeled and in val: 1 (17)",
        "in labeled and in unlabeled: 1 (00)",
        "--overlap",
    ):
        assert part in said
    assert not project.split("tiny", "mine").exists()


def test_a_declared_overlap_is_taken_and_recorded(project: Project, tiny: Path, tmp_path: Path) -> None:
    from u2pl.data.prepared import open_split

    first, second = tmp_path / "labeled.txt", tmp_path / "unlabeled.txt"
    first.write_text("00\n01\n")
    second.write_text("".join(f"{k:02}\n" for k in range(16)))
    words = [str(first), str(second)]
    prepared = prepare(project, str(tiny / "tiny.yaml"), "all", source=words, overlap=True)
    assert prepared.manifest["overlap"] is True
    assert len(open_split(project, "tiny", "all").unlabeled) == 16
    (found,) = audit.prepared(project)
    assert found.overlap == 2 and not found.problems


def test_a_labelled_image_without_a_mask_is_refused_and_an_unlabelled_one_is_not(
    project: Project, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("00\n01\n")
    (tiny / "masks/09.png").unlink()
    prepare(project, str(tiny / "tiny.yaml"), "mine", source=[str(tmp_path / "mine.txt")])
    (tiny / "masks/01.png").unlink()
    with pytest.raises(UserError, match=r"missing mask of a labelled image: 1 \(01\)"):
        prepare(project, "tiny", "mine", source=[str(tmp_path / "mine.txt")])


@pytest.mark.parametrize(
    ("split", "words", "said"),
    [
        ("1/8", ["x.txt"], "name of their own"),
        ("mine", ["x.txt"], "cannot be read"),
        ("mine", ["a.txt", "b.txt", "c.txt"], "one file"),
        ("1/8", ["unimtach"], "Did you mean 'unimatch'"),
        ("1/8", ["unimatch"], "no lists for 'tiny'"),
        ("1/8-unimatch", ["seeded"], "another"),
        ("1/8", ["seeded", "u2pl"], "not from"),
        ("1/8-nobody", [], "No source of lists called 'nobody'"),
        ("full", ["u2pl"], "no lists for 'tiny'"),
    ],
)
def test_words_about_lists_that_make_no_sense_are_a_sentence(
    project: Project, tiny: Path, split: str, words: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        prepare(project, str(tiny / "tiny.yaml"), split, source=words)


def test_an_edited_list_is_found_by_the_audit(project: Project, tiny: Path) -> None:
    folder = prepare(project, str(tiny / "tiny.yaml"), "1/4").folder
    assert audit.prepared(project, "tiny")[0].problems == []
    names = (folder / "val.txt").read_text()
    (folder / "unlabeled.txt").write_text((folder / "unlabeled.txt").read_text() + names)
    (found,) = audit.prepared(project, "tiny")
    assert found.leaked == 4
    assert found.problems == ["unlabeled.txt was edited", "4 validation images are trained on"]


def test_a_list_that_is_gone_is_a_problem_of_its_split_alone(project: Project, tiny: Path) -> None:
    (prepare(project, str(tiny / "tiny.yaml"), "1/4").folder / "val.txt").unlink()
    prepare(project, "tiny", "1/2")
    found = {each.split: each.problems for each in audit.prepared(project)}
    assert found["1/2"] == [] and "is missing" in found["1/4"][0]


@pytest.mark.parametrize("dataset", ["/tmp", "**x", "nobody"])
def test_an_audit_of_a_data_set_that_is_not_there_is_a_sentence(
    project: Project, tiny: Path, dataset: str
) -> None:
    prepare(project, str(tiny / "tiny.yaml"), "1/4")
    with pytest.raises(UserError, match="No split of"):
        audit.prepared(project, dataset)


def test_an_audit_without_a_prepared_split_says_how_to_get_one(project: Project) -> None:
    with pytest.raises(UserError, match="u2pl prepare"):
        audit.prepared(project)
