import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from u2pl.models import dropout
from u2pl.models.dropout import ChannelDropout

CPU = torch.device("cpu")


def network(p: float = 0.4) -> nn.Sequential:
    return nn.Sequential(ChannelDropout(6, p), nn.Sequential(ChannelDropout(6, p))).train()


def ones(images: int) -> torch.Tensor:
    return torch.ones(images, 6, 2, 3)


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(1, 7), unique=True, max_size=3), seed=st.integers(0, 2**40))
def test_an_image_loses_the_same_channels_however_the_batch_is_cut(cuts: list[int], seed: int):
    net, images = network(), torch.arange(8)
    factors = dropout.draw(net, 8, torch.Generator().manual_seed(seed))
    dropout.choose(net, factors, images, CPU)
    whole = net(ones(8))
    parts = []
    for part in images.tensor_split(sorted(cuts)):
        dropout.choose(net, factors, part, CPU)
        parts.append(net(ones(len(part))))
    assert torch.equal(torch.cat(parts), whole)


def test_whole_channels_are_dropped_in_their_share_and_the_rest_scaled():
    net = nn.Sequential(ChannelDropout(6, 0.25)).train()
    dropout.choose(net, dropout.draw(net, 5000, torch.Generator().manual_seed(0)), torch.arange(5000), CPU)
    out = net(ones(5000))
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (out == out[:, :, :1, :1]).all()
    assert (out[:, :, 0, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


def test_layers_draw_for_themselves_and_nothing_is_dropped_in_evaluation_or_at_0():
    net = network()
    factors = dropout.draw(net, 50, torch.Generator().manual_seed(0))
    assert len(factors) == 2 and not torch.equal(*factors)
    assert torch.equal(net.eval()(ones(3)), ones(3))
    assert dropout.draw(network(0.0), 50, torch.Generator()) == []
    assert torch.equal(network(0.0)(ones(3)), ones(3))


def test_until_channels_are_chosen_each_pass_drops_its_own():
    net = network()
    torch.manual_seed(0)
    one, other = net(ones(20)), net(ones(20))
    assert not torch.equal(one, other)
    torch.manual_seed(0)
    plain = nn.functional.dropout2d(nn.functional.dropout2d(ones(20), 0.4), 0.4)
    assert torch.equal(one, plain)
