from pathlib import Path

import numpy as np
import pytest
import torch

from u2pl.errors import UserError
from u2pl.exchange import trust_facts
from u2pl.exchange.model import Pooled
from u2pl.exchange.predictor import Item
from u2pl.exchange.trust_facts import TrustFacts
from u2pl.trust.review import Reviewer

PICTURE = np.zeros((4, 4, 3), np.uint8)
USUAL, STRANGE = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])


def facts(**changed: object) -> TrustFacts:
    known = np.array([[1, 0], [0.99, 0.1]], np.float32)
    given: dict[str, object] = {
        "format": 1,
        "weights": "0" * 64,
        "temperature": 2.0,
        "ece_before": 0.1,
        "ece_after": 0.05,
        "validation_images": 100,
        "image": {
            **{"threshold": 60.0, "poor_below": 40.0, "found": 0.8, "flagged": 0.3, "spearman": 0.7},
            **{"aurc": 10.0, "aurc_random": 20.0, "aurc_best": 5.0, "images": 100},
        },
        "pixel": {"threshold": 0.7, "wrong_found": 0.5, "flagged": 0.2, "wrong_of_flagged": 0.4},
        "novelty": {
            **{"count": 2, "size": 2, "neighbour": 1, "threshold": 0.5},
            "features": trust_facts.packed(known),
        },
    }
    return {**given, **changed}  # type: ignore[typeddict-item, return-value]


def seen(reviewer: Reviewer, name: str, sureness: float, feature: torch.Tensor = USUAL) -> None:
    logits = torch.zeros(2, 4, 4)
    logits[0] = sureness
    reviewer.see(Item(Path(name), name), PICTURE, logits, Pooled(feature, torch.zeros(3)))


def test_unusual_pictures_come_first_then_the_poorest_each_with_its_reason() -> None:
    reviewer = Reviewer(facts())
    for name, sureness, feature in (
        ("sure", 20.0, USUAL),
        ("unsure", 0.1, USUAL),
        ("strange", 20.0, STRANGE),
        ("less sure", 0.5, USUAL),
        ("good", 5.0, USUAL),
    ):
        seen(reviewer, name, sureness, feature)
    review = reviewer.review()
    assert [each.file.name for each in review.images] == ["strange", "unsure", "less sure", "good", "sure"]
    assert review.look == 3
    first, second = review.images[:2]
    assert len(first.reasons) == 1 and "unlike the images with labels (2." in first.reasons[0]
    assert second.reasons[0].startswith("expected mIoU 51.2 %, below 60.0 %")
    assert second.low_confidence == 1 and review.images[-1].low_confidence == 0
    # The temperature of 2 is applied: sigmoid(0.05), not sigmoid(0.1).
    assert second.confidence == pytest.approx(1 / (1 + np.exp(-0.05)))


def test_a_score_that_tells_nothing_names_no_picture() -> None:
    image = facts()["image"]
    assert image is not None
    for other in ({**image, "spearman": 0.05}, None):
        reviewer = Reviewer(facts(image=other, novelty=None, pixel=None))
        seen(reviewer, "unsure", 0.1)
        seen(reviewer, "strange", 20.0, STRANGE)
        review = reviewer.review()
        assert review.look == 0 and [each.file.name for each in review.images] == ["unsure", "strange"]
        assert review.images[0].novelty is None and review.images[0].low_confidence == 0
        assert "Too few images had labels" in review.words


def test_features_of_another_network_are_refused() -> None:
    reviewer = Reviewer(facts())
    with pytest.raises(UserError, match="another network"):
        seen(reviewer, "a", 1.0, torch.zeros(5))


def test_packed_features_come_back_as_they_were() -> None:
    rows = np.random.default_rng(0).normal(0, 1, (3, 4)).astype(np.float16)
    text = trust_facts.packed(rows)
    known = {"count": 3, "size": 4, "neighbour": 1, "threshold": 1.0, "features": text}
    assert np.array_equal(trust_facts.unpacked(known), rows)  # type: ignore[arg-type]
    for wrong in ({"count": 4}, {"neighbour": 4}, {"features": text[:-8]}, {"features": "no base64!"}):
        with pytest.raises(UserError, match="damaged"):
            trust_facts.unpacked({**known, **wrong})  # type: ignore[arg-type, typeddict-item]
    with pytest.raises(UserError, match="damaged"):
        trust_facts.unpacked({**known, "features": trust_facts.packed(rows * np.float16(np.nan))})  # type: ignore[arg-type, typeddict-item]
