import errno
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import trained_copy

from u2pl.data.description import Description
from u2pl.data.prepared import open_split
from u2pl.errors import UserError
from u2pl.exchange import model, predictor
from u2pl.exchange.model import Model
from u2pl.exchange.predictor import Item, find_images, overlay, predict
from u2pl.files import read_json
from u2pl.inference.evaluator import evaluate
from u2pl.models.deeplab import upsample
from u2pl.project import Project
from u2pl.runs.results import load_network

RUN = "tiny-1_4-suponly-s0"


@pytest.fixture(scope="module")
def trained(tiny_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one finished run."""
    return trained_copy(tiny_template, tmp_path_factory.mktemp("trained") / "project", "suponly").root


@pytest.fixture
def project(trained: Path) -> Project:
    return Project(trained)


def save(
    path: Path, size: tuple[int, int] = (64, 64), mode: str = "RGB", seed: int = 0, **options: object
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)  # type: ignore[arg-type]
    return path


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def results(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def test_a_prediction_is_what_the_network_says_at_the_images_own_size(
    project: Project, tmp_path: Path
) -> None:
    image = project.root / "pictures/images/17.png"
    summary = predict(Model.of_run(project, RUN), [image], tmp_path / "out")
    network, _ = load_network(project.runs / RUN, 4)
    pixels = np.array(opened(image), np.float32)
    normal = (pixels - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375)
    with torch.no_grad():
        logits = network(torch.from_numpy(normal).float().permute(2, 0, 1)[None], represent=False).logits
    expected = upsample(logits, (64, 64)).argmax(1)[0].numpy()
    mask = opened(tmp_path / "out/masks/17.png")
    assert mask.mode == "L" and np.array_equal(np.array(mask), expected)
    assert (summary.images, sum(summary.pixels.values())) == (1, 64 * 64)
    assert list(summary.pixels.values()) == np.bincount(expected.reshape(-1), minlength=4).tolist()


@pytest.mark.parametrize("window", [None, 32])
def test_a_validation_image_is_predicted_as_it_is_scored(
    project: Project, tmp_path: Path, window: int | None
) -> None:
    network, recipe = load_network(project.runs / RUN, 4)
    split = open_split(project, "tiny", "1/4")
    recipe = recipe.model_copy(update={"evaluation": "whole" if window is None else "sliding"})
    assert recipe.crop == 32
    scored = evaluate(network, split, recipe, keep_samples=True).samples
    predict(
        Model.of_run(project, RUN), [split.images[name] for name in scored], tmp_path / "out", window=window
    )
    assert scored
    for name, classes in scored.items():
        assert np.array_equal(np.array(opened(tmp_path / f"out/masks/{name}.png")), classes.numpy())


def test_colours_are_the_data_sets_and_the_overlay_shows_them_over_the_picture(
    project: Project, tmp_path: Path
) -> None:
    image = project.root / "pictures/images/18.png"
    predict(Model.of_run(project, RUN), [image], tmp_path / "out")
    mask, colors = (opened(tmp_path / f"out/{kind}/18.png") for kind in ("masks", "colors"))
    assert colors.mode == "P" and np.array_equal(np.array(colors), np.array(mask))
    palette = np.array(read_json(project.data("tiny") / "dataset.json")["colors"])
    assert np.array_equal(np.array(colors.convert("RGB")), palette[np.array(mask)])
    over, picture = np.array(opened(tmp_path / "out/overlays/18.png")), np.array(opened(image))
    clear = np.array(mask) == 0
    assert np.array_equal(over[clear], picture[clear])
    mixed = (picture[~clear] + palette[np.array(mask)][~clear]) / 2
    assert np.abs(over[~clear] - mixed).max() <= 0.5


def test_without_a_background_every_class_is_coloured() -> None:
    description = Description(name="x", classes=["a", "b"], colors=[(200, 0, 0), (0, 0, 200)])
    picture = np.zeros((1, 2, 3), np.uint8)
    assert overlay(picture, np.array([[0, 1]], np.uint8), description).tolist() == [
        [[100, 0, 0], [0, 0, 100]]
    ]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_pictures_of_any_kind_and_size_keep_their_size(project: Project, tmp_path: Path, mode: str) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    for k, size in enumerate([(33, 70), (64, 64), (17, 90)]):
        save(tmp_path / f"in/{k}.{suffix}", size, mode)
    predict(Model.of_run(project, RUN), [tmp_path / "in"], tmp_path / "out")
    assert [opened(tmp_path / f"out/masks/{k}.png").size for k in range(3)] == [
        (33, 70),
        (64, 64),
        (17, 90),
    ]
    assert opened(tmp_path / "out/overlays/0.png").mode == "RGB"


def test_a_picture_is_segmented_the_way_it_is_shown(project: Project, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    pixels = opened(project.root / "pictures/images/17.png").crop((0, 0, 40, 64))
    (tmp_path / "in").mkdir()
    pixels.save(tmp_path / "in/turned.png", exif=exif)
    pixels.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "in/upright.png")
    predict(Model.of_run(project, RUN), [tmp_path / "in"], tmp_path / "out")
    assert opened(tmp_path / "out/masks/turned.png").size == (64, 40)
    for kind in predictor.KINDS:
        turned, upright = (tmp_path / f"out/{kind}/{name}.png" for name in ("turned", "upright"))
        assert turned.read_bytes() == upright.read_bytes()


def test_batches_change_nothing(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(11):
        save(tmp_path / f"in/{k:02}.png", (64, 48 if k in (3, 4) else 64), seed=k)
    together = predict(Model.of_run(project, RUN), [tmp_path / "in"], tmp_path / "a")
    monkeypatch.setattr(model, "BATCH", 1)
    alone = predict(Model.of_run(project, RUN), [tmp_path / "in"], tmp_path / "b")
    assert together.pixels == alone.pixels and results(tmp_path / "a") == results(tmp_path / "b")
    for name in results(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_large_images_are_looked_at_by_windows(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows: list[int] = []
    original = model.sliding_logits

    def sliding(network: object, image: torch.Tensor, window: int) -> torch.Tensor:
        windows.append(window)
        return original(network, image, window)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "sliding_logits", sliding)
    monkeypatch.setattr(model, "WHOLE", 70 * 70)
    monkeypatch.setattr(model, "WINDOW", 50)
    save(tmp_path / "in/small.png", (70, 70))
    save(tmp_path / "in/large.png", (71, 70))
    predict(Model.of_run(project, RUN), [tmp_path / "in"], tmp_path / "out")
    assert windows == [50]
    predict(Model.of_run(project, RUN), [tmp_path / "in"], tmp_path / "out", window=40)
    assert windows == [50, 40, 40]


def test_a_run_that_is_evaluated_by_windows_always_predicts_by_them(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_windows(path: Path, classes: int) -> object:
        network, recipe = load_network(path, classes)
        return network, recipe.model_copy(update={"evaluation": "sliding", "resize": 0.75})

    seen: list[tuple[tuple[int, ...], int]] = []
    original = model.sliding_logits

    def sliding(network: object, image: torch.Tensor, window: int) -> torch.Tensor:
        seen.append((tuple(image.shape), window))
        return original(network, image, window)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "load_network", by_windows)
    monkeypatch.setattr(model, "sliding_logits", sliding)
    predict(Model.of_run(project, RUN), [save(tmp_path / "a.png", (80, 64))], tmp_path / "out")
    assert seen == [((1, 3, 48, 60), 32)]
    assert opened(tmp_path / "out/masks/a.png").size == (80, 64)


def test_files_that_cannot_be_read_are_left_out_and_the_others_done(project: Project, tmp_path: Path) -> None:
    for k in range(4):
        save(tmp_path / f"in/{k}.png", seed=k)
    cut = tmp_path / "in/1.png"
    cut.write_bytes(cut.read_bytes()[:500])
    (tmp_path / "in/empty.jpg").touch()
    exif = save(tmp_path / "in/exif.webp", exif=Image.Exif())
    whole = exif.read_bytes()
    assert b"MM\x00*" in whole
    exif.write_bytes(whole.replace(b"MM\x00*", b"MMu*"))
    (tmp_path / "in/loop.png").symlink_to("loop.png")
    (tmp_path / "in/notes.txt").write_text("no picture")
    told: list[tuple[int, int]] = []
    summary = predict(
        Model.of_run(project, RUN),
        [tmp_path / "in"],
        tmp_path / "out",
        progress=lambda _, done, total: told.append((done, total)),
    )
    assert summary.images == 3 and {path.name for path, _ in summary.skipped} == {
        "1.png",
        "empty.jpg",
        "exif.webp",
    }
    assert {Path(name).stem for name in results(tmp_path / "out")} == {"0", "2", "3"}
    assert told[-1] == (6, 6) and told.count((6, 6)) == 1
    assert list(summary.shares.values()) == [n / (3 * 64 * 64) for n in summary.pixels.values()]


def test_pictures_that_would_be_cut_and_pipes_are_left_out_with_the_reason(
    project: Project, tmp_path: Path
) -> None:
    from data.encoders import png

    folder = tmp_path / "in"
    save(folder / "good.png")
    deep = np.random.default_rng(0).integers(0, 4096, (64, 64, 3), dtype=np.uint16)
    (folder / "deep.png").write_bytes(png(deep, 16, 2))
    save(folder / "clear.png", mode="RGBA").write_bytes(png(np.full((8, 8, 4), 7, np.uint8), 8, 6))
    frames = [Image.fromarray(np.full((8, 8, 3), k, np.uint8)) for k in range(2)]
    frames[0].save(folder / "pages.tif", save_all=True, append_images=frames[1:])
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(tmp_path / "named.jpg")
    (folder / "below.png").mkdir()
    save(folder / "below.png/inside.png")
    summary = predict(Model.of_run(project, RUN), [folder, tmp_path / "named.jpg"], tmp_path / "out")
    assert summary.images == 2
    reasons = {path.name: reason for path, reason in summary.skipped}
    for name, said in {
        "deep.png": "image with more than 8 bits a channel",
        "clear.png": "image with transparent pixels",
        "pages.tif": "image of several pages or frames",
        "pipe.png": "image that is no regular file",
        "named.jpg": "image that is no regular file",
    }.items():
        assert reasons.pop(name).startswith(said)
    assert not reasons


def test_where_nothing_can_be_read_there_are_no_shares(project: Project, tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    summary = predict(Model.of_run(project, RUN), [tmp_path / "a.png"], tmp_path / "out")
    assert summary.images == 0 and summary.shares == dict.fromkeys(("ground", "square", "disc", "bar"), 0)


@pytest.mark.parametrize(("budget", "ahead"), [(2**28, 6), (2 * 3 * 64 * 64, 3)])
def test_pictures_are_decoded_ahead_as_far_as_number_and_memory_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int, ahead: int
) -> None:
    read: list[Path] = []
    original = predictor.read_image

    def reading(path: Path) -> np.ndarray:
        read.append(path)
        return original(path)

    class AtOnce:
        """Instead of threads, whose order nobody knows."""

        def __init__(self, workers: int) -> None:
            self.is_open = True

        def submit(self, function: Callable[[Path], object], path: Path) -> "Future[object]":
            future: Future[object] = Future()
            future.set_result(function(path))
            return future

        def shutdown(self, **options: bool) -> None:
            assert options == {"cancel_futures": True}

    monkeypatch.setattr(predictor, "AHEAD", 6)
    monkeypatch.setattr(predictor, "AHEAD_BYTES", budget + 1)
    monkeypatch.setattr(predictor, "ThreadPoolExecutor", AtOnce)
    monkeypatch.setattr(predictor, "read_image", reading)
    items = [Item(save(tmp_path / f"{k:02}.png"), str(k)) for k in range(20)]
    pictures = predictor.readable(items, [])
    for done, (item, picture) in enumerate(pictures):
        assert item is items[done] and picture.shape == (64, 64, 3)
        assert len(read) == min(done + ahead, 20)
    assert len(read) == 20


def test_a_full_disk_is_not_taken_for_a_file_that_cannot_be_read(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    original = predictor.write_png

    def filling(path: Path, *rest: object) -> None:
        if len(written) == 7:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        original(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(predictor, "write_png", filling)
    with pytest.raises(OSError, match="No space left"):
        predict(Model.of_run(project, RUN), [project.root / "pictures/images"], tmp_path / "out")
    assert len(results(tmp_path / "out")) == 7


def test_no_half_picture_is_left_under_the_name_of_a_result(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = save(tmp_path / "a.png")
    predict(Model.of_run(project, RUN), [image], tmp_path / "out")
    before = (tmp_path / "out/overlays/a.png").read_bytes()

    def cut_off(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(bytes(data)[:20])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", cut_off)
    with pytest.raises(OSError, match="No space left"):
        predict(Model.of_run(project, RUN), [image], tmp_path / "out")
    assert (tmp_path / "out/overlays/a.png").read_bytes() == before
    assert len(results(tmp_path / "out")) == 3


def test_the_masks_of_a_data_set_are_not_replaced_by_predictions(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.root / "pictures", tmp_path / "mine")
    before = {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*.png")}
    with pytest.raises(UserError, match="did not write, perhaps the masks of a data set"):
        predict(Model.of_run(project, RUN), [tmp_path / "mine/images"], tmp_path / "mine")
    assert {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*.png")} == before


def test_a_result_is_no_image_to_be_replaced_by_its_own(project: Project, tmp_path: Path) -> None:
    predict(Model.of_run(project, RUN), [save(tmp_path / "a.png")], tmp_path / "out")
    with pytest.raises(UserError, match="lies where results are written"):
        predict(Model.of_run(project, RUN), [tmp_path / "out/overlays/a.png"], tmp_path / "out")
    assert predict(Model.of_run(project, RUN), [tmp_path / "out/overlays"], tmp_path / "other").images == 1


def test_folders_names_and_clashes(tmp_path: Path) -> None:
    for name in (
        "a b.png",
        "été/日本.jpg",
        "same.png",
        "same.jpg",
        "CASE.png",
        "case.webp",
        "out/masks/old.png",
    ):
        save(tmp_path / "in" / name)
    found = {item.name: item.path.name for item in find_images([tmp_path / "in"], tmp_path / "in/out")}
    assert found == {
        "a b": "a b.png",
        "été/日本": "日本.jpg",
        "same.png": "same.png",
        "same.jpg": "same.jpg",
        "CASE.png": "CASE.png",
        "case.webp": "case.webp",
    }


def test_names_are_different_on_every_file_system() -> None:
    """An accent written in two ways, and a name that is taken by one that has kept its suffix."""
    files = ["e\u0301.png", "\u00e9.jpg", "x.png", "x.jpg", "x.png.png"]
    assert predictor._names(files) == ["e\u0301.png", "\u00e9.jpg", "x.png", "x.jpg", "x.png-2"]


def test_a_folder_that_is_called_like_a_result_does_not_take_its_place(
    project: Project, tmp_path: Path
) -> None:
    for name in ("a.png/b.jpg", "a.jpg"):
        save(tmp_path / "in" / name)
    predict(Model.of_run(project, RUN), [tmp_path / "in"], tmp_path / "out")
    masks = {name for name in results(tmp_path / "out") if name.startswith("masks/")}
    assert masks == {"masks/a-2.png", "masks/a.png/b.png"}


def test_results_may_be_written_into_the_folder_of_the_images(project: Project, tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    for _ in range(2):
        assert predict(Model.of_run(project, RUN), [tmp_path / "in"], tmp_path / "in").images == 1


def test_classes_that_have_changed_since_the_run_was_trained_are_refused(
    trained: Path, tmp_path: Path
) -> None:
    project = Project(Path(shutil.copytree(trained, tmp_path / "moved")))
    path = project.data("tiny") / "dataset.json"
    path.write_text(path.read_text().replace('"disc"', '"disk"'))
    with pytest.raises(UserError, match="have changed since"):
        predict(Model.of_run(project, RUN), [save(tmp_path / "a.png")], tmp_path / "out")


def test_two_folders_keep_their_names_and_the_same_file_is_done_once(tmp_path: Path) -> None:
    one, two = save(tmp_path / "one/x.png"), save(tmp_path / "two/x.png")
    found = find_images([tmp_path / "one", tmp_path / "two", one], tmp_path / "out")
    assert [(item.path, item.name) for item in found] == [(one, "one/x"), (two, "two/x")]
    alone = find_images([one, two], tmp_path / "out")
    assert [item.name for item in alone] == ["x.png", "x.png-2"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: (folder / "in").mkdir(), "no image in"),
        (lambda folder: None, "no file or folder"),
        (lambda folder: (save(folder / "in/a.png"), (folder / "out").touch()), "is a file"),
        (
            lambda folder: (
                save(folder / "in/a.png"),
                (folder / "out").mkdir(),
                (folder / "out/colors").touch(),
            ),
            "cannot be made",
        ),
    ],
)
def test_without_images_or_a_place_to_write_it_is_a_sentence(
    project: Project, tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    make(tmp_path)
    with pytest.raises(UserError, match=said):
        predict(Model.of_run(project, RUN), [tmp_path / "in"], tmp_path / "out")


def test_the_images_of_the_data_set_are_not_needed_but_its_description_is(
    trained: Path, tmp_path: Path
) -> None:
    project = Project(Path(shutil.copytree(trained, tmp_path / "moved")))
    shutil.rmtree(project.root / "pictures")
    shutil.rmtree(project.data("tiny") / "splits")
    image = save(tmp_path / "a.png")
    assert predict(Model.of_run(project, RUN), [image], tmp_path / "out").images == 1
    (project.data("tiny") / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"dataset\.json is missing"):
        predict(Model.of_run(project, RUN), [image], tmp_path / "out")
