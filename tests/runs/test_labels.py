"""Tags and notes of runs."""

import threading
from pathlib import Path

import pytest

from u2pl.errors import UsageError, UserError
from u2pl.runs.labels import NOTE_LENGTH, add_tags, read_labels, remove_tags, write_note


def test_a_run_that_nobody_labelled_has_nothing_and_gets_no_file(tmp_path: Path):
    assert read_labels(tmp_path) == {"tags": [], "note": ""}
    assert list(tmp_path.iterdir()) == []


def test_tags_and_note_stay_beside_each_other(tmp_path: Path):
    add_tags(tmp_path, ["good", "lr=0.01"])
    write_note(tmp_path, "  the best\nso far ")
    add_tags(tmp_path, ["paper", "good"])
    assert read_labels(tmp_path) == {"tags": ["good", "lr=0.01", "paper"], "note": "the best\nso far"}
    remove_tags(tmp_path, ["good"])
    write_note(tmp_path, "")
    assert read_labels(tmp_path) == {"tags": ["lr=0.01", "paper"], "note": ""}


@pytest.mark.parametrize("tag", ["", "a,b", "a b", "-x", "../x", "x" * 61, "\x1b[31m", "x\n"])
def test_what_is_no_word_is_no_tag_and_nothing_is_written(tmp_path: Path, tag: str):
    with pytest.raises(UsageError, match="A tag is a word"):
        add_tags(tmp_path, ["good", tag])
    assert read_labels(tmp_path)["tags"] == []


def test_a_tag_that_a_run_has_not_is_named_with_those_that_it_has(tmp_path: Path):
    with pytest.raises(UsageError, match=r"has no tag 'god'\. It has none"):
        remove_tags(tmp_path, ["god"])
    add_tags(tmp_path, ["good"])
    with pytest.raises(UsageError, match=r"has no tag 'god'\. It has: good"):
        remove_tags(tmp_path, ["good", "god"])
    assert read_labels(tmp_path)["tags"] == ["good"]


def test_a_note_without_end_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="at most"):
        write_note(tmp_path, "x" * (NOTE_LENGTH + 1))


@pytest.mark.parametrize("text", ["{", '{"tags": ["a b"], "note": ""}', '{"tags": "x", "note": ""}', "[]"])
def test_a_damaged_file_is_a_sentence_and_is_not_written_over(tmp_path: Path, text: str):
    (tmp_path / "labels.json").write_text(text)
    for work in (read_labels, lambda folder: add_tags(folder, ["good"])):
        with pytest.raises(UserError, match=r"labels\.json is (damaged|not what u2pl writes there)"):
            work(tmp_path)
    assert (tmp_path / "labels.json").read_text() == text


def test_tags_given_at_once_are_all_there(tmp_path: Path):
    threads = [threading.Thread(target=add_tags, args=(tmp_path, [f"t{k}"])) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_labels(tmp_path)["tags"]) == [f"t{k}" for k in range(8)]
