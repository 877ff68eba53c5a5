"""What whole numbers decide anew for each image: masks over a signal, and the position that each image gives."""

import pytest
import torch
from torch import nn

import fewspikes as fs
from fewspikes.base.errors import FewSpikesError

WORDS, LENGTH, WIDTH = 20, 7, 5


class Net(nn.Module):
    """A layer of neurons on embedded words, what `then` does with it beside the words and the mask, and neurons."""

    def __init__(self, then):
        super().__init__()
        self.words, self.first, self.then = nn.Embedding(WORDS, 6), nn.Linear(6, WIDTH), then

    def forward(self, ids, mask):
        return torch.relu(self.then(torch.relu(self.first(self.words(ids))), ids, mask))


def texts(n):
    mask = (torch.arange(LENGTH) < torch.randint(1, LENGTH + 1, (n, 1))).long()
    return torch.randint(0, WORDS, (n, LENGTH)), mask


def pick(x, index):
    return x[torch.arange(x.shape[0]), index]


def filled(x, ids, mask):
    y = x.clone()
    y[(mask == 0)[..., None].expand(-1, -1, WIDTH)] = 0.75
    return y


CASES = {
    "masked_fill": lambda x, ids, mask: x.masked_fill((mask == 0)[..., None], 0.5),
    "where, a number where false": lambda x, ids, mask: torch.where((ids > 9)[..., None], x, -0.25),
    "where, a number where true": lambda x, ids, mask: torch.where((ids > 9)[..., None], 0.0, x),
    "where, two signals": lambda x, ids, mask: torch.where((ids > 5)[..., None], x, 2 * x.flip(2)),
    "index_put": filled,
    "the last word": lambda x, ids, mask: pick(x, mask.sum(1) - 1),
    "counted from behind": lambda x, ids, mask: pick(x, -mask.sum(1)),
    "where the largest number is": lambda x, ids, mask: pick(x, ids.argmax(1)),
    "one number each": lambda x, ids, mask: pick(x.sum(2), (ids[:, 0] % LENGTH).int()),
    "cast and moved numbers of images": lambda x, ids, mask: x[
        torch.arange(x.shape[0]).int().reshape(-1), ids[:, 0] % 3
    ],
}


@pytest.mark.parametrize("name", CASES)
def test_each_image_has_its_own_and_nothing_is_left_digital(name):
    torch.manual_seed(0)
    model = Net(CASES[name]).eval()
    snn = fs.convert(model, texts(2), [texts(64)], K=16, repair=False)
    ids, mask = texts(9)
    wanted = model(ids, mask)
    assert (snn.as_ann()(ids, mask) - wanted).abs().max() < 1e-6
    assert (snn(ids, mask) - wanted).abs().max() < 1e-3
    assert snn.report.left_digital == ()


def test_a_spike_reaches_what_it_reaches_where_masks_are_open():
    # Its own place, and the mirrored channel; of the middle channel both are one place.
    torch.manual_seed(0)
    snn = fs.convert(Net(CASES["where, two signals"]).eval(), texts(2), K=4, alpha=4.0)
    assert snn.structure.fan_out["relu#1"].dense().tolist() == [[2, 2, 1, 2, 2]] * LENGTH


def test_of_a_pick_every_position_reaches_what_follows_it():
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, 3)
    model = Net(lambda x, ids, mask: pick(head(x), mask.sum(1) - 1)).eval()
    model.head = head.eval()
    snn = fs.convert(model, texts(2), K=4, alpha=4.0)
    assert snn.structure.fan_out["relu#1"].dense().tolist() == [[3] * WIDTH] * LENGTH


def test_a_number_as_large_as_a_mask_for_a_softmax_is_no_signal():
    torch.manual_seed(0)
    model = Net(lambda x, ids, mask: x.masked_fill((mask == 0)[..., None], -1e9)).eval()
    with pytest.raises(FewSpikesError, match="operator aten.masked_fill.Scalar at the top of the model"):
        fs.convert(model, texts(2))


def test_an_index_of_other_images_is_refused():
    torch.manual_seed(0)
    model = Net(lambda x, ids, mask: x[ids[:, 0] % 2, ids[:, 1] % LENGTH]).eval()
    with pytest.raises(FewSpikesError, match="aten.index.Tensor"):
        fs.convert(model, texts(2))


class Written(nn.Module):
    """A number written into each image's own place of whole numbers, as transformers does for sound."""

    def __init__(self):
        super().__init__()
        self.f = nn.Linear(LENGTH, 4)

    def forward(self, x, mask):
        places = torch.zeros_like(mask)
        places[(torch.arange(x.shape[0]), mask.sum(1) - 1)] = 1
        open_ = places.flip([-1]).cumsum(-1).flip([-1]).bool()
        return torch.relu(self.f(x * open_))


def test_a_number_goes_to_each_images_own_place():
    torch.manual_seed(0)
    model, mask = Written().eval(), texts(6)[1]
    snn = fs.convert(model, (torch.randn(2, LENGTH), mask[:2]))
    x = torch.randn(6, LENGTH)
    assert torch.equal(snn.as_ann()(x, mask), model(x, mask))
    assert torch.equal(model(x, mask), model(x * mask, mask))
