import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import trained_copy

from u2pl.exchange import predictor
from u2pl.exchange.model import Model, Pooled
from u2pl.project import Project
from u2pl.trust import looked
from u2pl.trust.looked import Look, look, look_of

RUN = "tiny-1_4-suponly-s0"
NO_FEATURES = Pooled(torch.zeros(3), torch.zeros(2))


@pytest.fixture(scope="module")
def project(tiny_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return trained_copy(tiny_template, tmp_path_factory.mktemp("trained") / "project", "suponly")


@pytest.fixture(scope="module")
def model(project: Project) -> Model:
    return Model.of_run(project, RUN)


@pytest.fixture
def pictures(project: Project, tmp_path: Path) -> dict[str, Path]:
    """Two sizes, one after the other."""
    found = {name: project.root / f"pictures/images/{name}.png" for name in ("17", "18", "19", "03")}
    for name in ("19", "03"):
        with Image.open(found[name]) as picture:
            picture.resize((50, 40)).save(tmp_path / f"{name}.png")
        found[name] = tmp_path / f"{name}.png"
    return found


def same(one: Look, other: Look) -> bool:
    return one.name == other.name and all(
        np.allclose(a, b, atol=1e-5) for a, b in zip(one[1:], other[1:], strict=True)
    )


def test_a_look_is_what_the_probabilities_of_the_prediction_come_to(
    model: Model, pictures: dict[str, Path]
) -> None:
    looks, unreadable = look(model, pictures, threshold=0.6)
    assert [each.name for each in looks] == ["17", "18", "19", "03"] and not unreadable
    for each in looks:
        prediction = model.predict(pictures[each.name])
        largest = prediction.probabilities.max(axis=0)
        assert each.entropy == pytest.approx(prediction.entropy.mean(), abs=1e-5)
        assert each.confidence == pytest.approx(largest.mean(), abs=1e-5)
        assert each.share_low == pytest.approx((largest < 0.6).mean(), abs=1e-3)
        assert np.allclose(each.shares, [(prediction.classes == c).mean() for c in range(4)], atol=1e-6)
        assert np.allclose(each.expected, prediction.probabilities.mean(axis=(1, 2)), atol=1e-5)
        assert each.feature.dtype == np.float32 and each.feature.shape == (model.network.backbone.channels,)


def test_the_feature_is_the_mean_of_the_encoders_last_map(model: Model, pictures: dict[str, Path]) -> None:
    looks, _ = look(model, pictures)
    for each in looks:
        with Image.open(pictures[each.name]) as opened:
            pixels = np.array(opened.convert("RGB"), np.float32)
        normal = (pixels - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375)
        with torch.no_grad():
            stages = model.network.backbone(torch.from_numpy(normal).float().permute(2, 0, 1)[None])
        assert np.allclose(each.feature, stages.high.mean(dim=(2, 3))[0].numpy(), atol=1e-4)
        assert np.allclose(each.middle, stages.middle.mean(dim=(2, 3))[0].numpy(), atol=1e-4)


def test_batches_and_pieces_change_nothing_and_no_hook_stays(
    model: Model, pictures: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    together, _ = look(model, pictures, temperature=1.7, threshold=0.5)
    monkeypatch.setattr(looked, "PIXELS", 700)
    alone = [
        look(model, {name: path}, temperature=1.7, threshold=0.5)[0][0] for name, path in pictures.items()
    ]
    assert all(map(same, together, alone))
    assert not model.network.backbone._forward_hooks


def test_through_windows_the_feature_is_the_mean_over_them(model: Model, pictures: dict[str, Path]) -> None:
    with Image.open(pictures["17"]) as one, Image.open(pictures["18"]) as other:
        both = [np.array(picture.convert("RGB")) for picture in (one, other)]
    _, features = model.logits_and_features(both, window=64)
    assert torch.allclose(features.high, model.logits_and_features(both)[1].high, atol=1e-5)
    # Windows of 48 in 64 pixels begin at 0 and at 16.
    logits, features = model.logits_and_features(both, window=48)
    for k, picture in enumerate(both):
        parts = [picture[y : y + 48, x : x + 48] for y in (0, 16) for x in (0, 16)]
        alone = [model.logits_and_features([part])[1] for part in parts]
        assert torch.allclose(
            features.high[k], torch.cat([each.high for each in alone]).mean(dim=0), atol=1e-5
        )
        assert torch.allclose(
            features.middle[k], torch.cat([each.middle for each in alone]).mean(dim=0), atol=1e-5
        )
    assert torch.equal(logits, model.logits(both, window=48))


def test_a_file_that_cannot_be_read_is_told_with_its_name_and_the_rest_is_done(
    model: Model, pictures: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "no.png").write_bytes(b"no picture")
    told: list[tuple[str, int, int]] = []
    looks, unreadable = look(
        model,
        {"17": pictures["17"], "03": pictures["03"], "bad": tmp_path / "no.png"},
        progress=lambda *words: told.append(words),
    )
    assert [each.name for each in looks] == ["17", "03"]
    assert [name for name, _ in unreadable] == ["bad"] and unreadable[0][1]
    assert told[-1] == ("looking at images", 3, 3)


def test_two_names_of_one_file_are_two_looks(model: Model, pictures: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(pictures["17"], tmp_path / "a.png")
    looks, _ = look(model, {"one": tmp_path / "a.png", "two": tmp_path / "a.png"})
    assert [each.name for each in looks] == ["one", "two"] and looks[0].entropy == looks[1].entropy


def test_a_temperature_flattens_probabilities_and_leaves_classes() -> None:
    logits = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)) * 4
    sharp, flat = (look_of("a", logits, NO_FEATURES, temperature) for temperature in (1.0, 3.0))
    assert flat.entropy > sharp.entropy and flat.confidence < sharp.confidence
    assert np.array_equal(flat.shares, sharp.shares)
    nothing = look_of("a", torch.zeros(3, 5, 7), NO_FEATURES, threshold=0.5)
    assert nothing.entropy == pytest.approx(math.log(3)) and nothing.share_low == 1
    sure = look_of("a", torch.tensor([100.0, 0, 0]).reshape(3, 1, 1), NO_FEATURES, threshold=0.5)
    assert (sure.entropy, sure.share_low, sure.confidence) == (pytest.approx(0), 0, 1)


def test_the_expected_miou_is_what_the_probabilities_promise() -> None:
    prob = torch.tensor([[0.8, 0.3, 0.6], [0.1, 0.6, 0.3], [0.1, 0.1, 0.1]])  # of three pixels, a column each
    look = look_of("a", prob.log().reshape(3, 1, 3), NO_FEATURES)
    first = (0.8 + 0.6) / (2 + 0.3)
    second = 0.6 / (1 + 0.1 + 0.3)
    assert look.expected_miou == pytest.approx(100 * (first + second) / 2)
    sure = torch.zeros(3, 4, 4)
    sure[1] = 50
    assert look_of("a", sure, NO_FEATURES).expected_miou == pytest.approx(100)


def test_batches_hold_no_more_than_predictions_do(
    model: Model, pictures: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    observed = Model.logits_and_features

    def count(self: Model, some: list[np.ndarray], window: int | None = None) -> object:
        seen.append(len(some))
        return observed(self, some, window)

    monkeypatch.setattr(Model, "logits_and_features", count)
    look(model, {**pictures, **{f"{k}": pictures["17"] for k in range(predictor.BATCH + 1)}})
    assert seen == [2, 2, predictor.BATCH, 1]
