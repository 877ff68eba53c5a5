"""Counting: exact integers that add up, by hand on a small network, and left alone afterwards."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import fewspikes as fs
from networks import small, squeeze_excite, torn

IMAGES = torch.zeros(1, 3, 8, 8)


def counted(snn, x, **options):
    with fs.count(snn, **options) as counts:
        snn(x)
    return counts


def test_spikes_are_the_sum_over_the_spike_trains():
    snn, x = fs.convert(small(), IMAGES), torch.randn(5, 3, 8, 8)
    inputs = {}
    for name, neuron in snn.neurons.items():
        neuron.register_forward_pre_hook(lambda module, args, name=name: inputs.update({name: args[0]}))
    counts = counted(snn, x)
    for name, neuron in snn.neurons.items():
        assert counts.by_site[name] == int(fs.encode(inputs[name], neuron.code).sum())
    assert counts.images == 5
    assert counts.total == sum(counts.by_site.values())
    assert counts.per_neuron == counts.total / (5 * 1024)


def test_counts_of_parts_add_up_to_the_whole():
    snn, x = fs.convert(squeeze_excite(), IMAGES), torch.randn(8, 3, 8, 8)
    parts = counted(snn, x[:3], synops=True) + counted(snn, x[3:], synops=True)
    with fs.count(snn, synops=True) as both:
        snn(x[:3])
        snn(x[3:])
    assert parts == both
    assert parts.images == 8


def test_counting_changes_no_output_and_leaves_nothing_behind():
    snn, x = fs.convert(small(), IMAGES), torch.randn(2, 3, 8, 8)
    before = snn(x)
    with fs.count(snn):
        assert torch.equal(snn(x), before)
    assert not any(neuron.spike_hooks for neuron in snn.neurons.values())
    assert not snn._forward_hooks


def test_nested_counts_count_each_for_itself():
    snn, x = fs.convert(small(), IMAGES), torch.randn(2, 3, 8, 8)
    with fs.count(snn) as outer:
        snn(x)
        with fs.count(snn) as inner:
            snn(x)
    assert (outer.images, inner.images) == (4, 2)
    assert outer.total == 2 * inner.total


def test_a_pass_that_fails_counts_nothing():
    snn = fs.convert(small(), IMAGES)
    with fs.count(snn) as counts:
        snn(torch.ones(2, 3, 8, 8))
        handle = snn.running_graph.register_forward_hook(lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            snn(torch.ones(2, 3, 8, 8))
        handle.remove()
    assert counts == counted(snn, torch.ones(2, 3, 8, 8))


def test_inputs_outside_the_domain_are_counted():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).eval()
    nn.init.ones_(model[0].weight)
    counts = counted(fs.convert(model, torch.zeros(1, 1)), torch.tensor([[-50.0], [24.0], [25.0], [25.5]]))
    assert counts.clipped_by_site == {"1": 1}  # only 25.5 is above alpha = 25; below 0 a ReLU is exact
    assert counts.clipped_fraction == 0.25


def test_a_capped_relu_clips_nothing_above_its_cap():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU6()).eval()
    nn.init.ones_(model[0].weight)
    assert counted(fs.convert(model, torch.zeros(1, 1)), torch.tensor([[100.0]])).clipped_by_site == {"1": 0}


def test_spikes_of_a_relu_are_the_ones_of_a_binary_number():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).eval()
    nn.init.ones_(model[0].weight)
    snn = fs.convert(model, torch.zeros(1, 1), K=4, alpha=16.0, rounding="down")
    x = torch.arange(16.0)[:, None]
    assert counted(snn, x).total == sum(n.bit_count() for n in range(16))


class ByHand(nn.Module):
    """4x4 image -> conv (1 -> 2, 3x3, pad 1) -> ReLU a -> conv (2 -> 4, 3x3, pad 1, stride 2, 2 groups) -> ReLU b
    -> flatten -> linear (16 -> 3)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.second = nn.Conv2d(2, 4, 3, padding=1, stride=2, groups=2)
        self.head = nn.Linear(16, 3)
        self.a, self.b = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        return self.head(self.b(self.second(self.a(self.first(x)))).flatten(1))


def by_hand():
    model = ByHand().eval()
    with torch.no_grad():  # every neuron's input is 1.5 whatever the image: with alpha = 2 and K = 1 each fires once
        for layer in (model.first, model.second):
            layer.weight.zero_()
            layer.bias.fill_(1.5)
    return fs.convert(model, torch.zeros(1, 1, 4, 4), K=1, alpha=2.0)


def test_synaptic_operations_of_a_network_counted_by_hand():
    # Layer a: 2 x 4 x 4 neurons, each fires once. A spike at row r reaches the output rows o of the second convolution
    # with |2 o - r| <= 1, o in {0, 1}: r = 0: {0}; 1: {0, 1}; 2: {1}; 3: {1}, so 1 + 2 + 1 + 1 = 5 pairs of rows, and
    # 5 of columns. Groups: each input channel reaches 2 of the 4 output channels. 2 channels x 5 x 5 x 2 = 100.
    # Layer b: 4 x 2 x 2 = 16 neurons, each fires once and reaches the 3 outputs: 48. Together 148 a image.
    counts = counted(by_hand(), torch.zeros(2, 1, 4, 4), synops=True)
    assert counts.by_site == {"a": 2 * 32, "b": 2 * 16}
    assert counts.synops == 2 * 148


def test_multiply_adds_of_a_network_counted_by_hand():
    # First convolution, stride 1, pad 1, on 4 rows: 2 + 3 + 3 + 2 = 10 pairs of rows, 10 of columns, 1 -> 2 channels:
    # 200; its input is the analog image, so these remain. Second: 100 as above. Head: 16 x 3 = 48.
    macs = by_hand().macs
    assert (macs.ann, macs.analog) == (200 + 100 + 48, 200)


def test_synops_are_left_out_unless_asked_for():
    assert counted(fs.convert(small(), IMAGES), torch.zeros(1, 3, 8, 8)).synops is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fs.count(nn.ReLU()).__enter__(), "count needs a converted network; got ReLU"),
        (
            lambda: (
                counted(fs.convert(small(), IMAGES), IMAGES) + counted(fs.convert(squeeze_excite(), IMAGES), IMAGES)
            ),
            "same",
        ),
    ],
)
def test_what_cannot_be_counted_raises(call, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        call()


def test_a_mean_of_nothing_raises():
    with fs.count(fs.convert(small(), IMAGES)) as counts:
        pass
    with pytest.raises(fs.FewSpikesError, match="nothing was counted yet"):
        _ = counts.per_neuron


def test_threads_count_exactly():
    snn, x = fs.convert(small(), IMAGES), torch.randn(4, 3, 8, 8)
    once = counted(snn, x)
    with fs.count(snn) as counts, ThreadPoolExecutor(2) as pool:
        list(pool.map(snn, [x] * 20))
    assert counts.images == 80
    assert counts.by_site == {name: 20 * spikes for name, spikes in once.by_site.items()}


def test_a_site_whose_fan_out_is_unknown_is_left_out_with_the_reason():
    snn, x = fs.convert(torn(), torch.zeros(1, 4), K=4, alpha=4.0), torch.randn(2, 4)
    counts = counted(snn, x, synops=True)
    assert counts.unknown_synops == {
        "relu#1": "operator site at the top of the model: no axis has the images of a batch in a known order"
    }
    with fs.count(snn, synops=True) as both, torch.no_grad():
        snn(x), snn(x)
    assert counts.synops == both.synops / 2 == 3 * counts.by_site["relu#2"] > 0
    assert both.by_site["relu#1"] == 2 * counts.by_site["relu#1"] > 0


def test_a_pass_that_began_before_the_block_is_not_counted_and_does_not_fail():
    snn, x = fs.convert(small(), IMAGES), torch.randn(2, 3, 8, 8)
    inside, go = threading.Event(), threading.Event()

    def wait(*_):
        inside.set()
        go.wait(10)

    handle = snn.running_graph.register_forward_pre_hook(wait)
    with ThreadPoolExecutor(1) as pool, fs.count(snn) as outer:  # hooks that are added in a pass run at its end
        running = pool.submit(snn, x)
        inside.wait(10)
        with fs.count(snn) as counts:
            go.set()
            running.result()
            handle.remove()
            snn(x)
    assert counts == counted(snn, x)
    assert outer.images == 4


@pytest.mark.parametrize("synops", [False, True])
def test_a_copy_made_inside_a_count_computes_the_same_and_counts_nothing(synops):
    snn, x = fs.convert(small(), IMAGES), torch.randn(2, 3, 8, 8)
    with fs.count(snn, synops=synops) as counts:
        copies = copy.deepcopy(snn), pickle.loads(pickle.dumps(snn))
        wanted = snn(x)
        assert all(torch.equal(one(x), wanted) for one in copies)
    assert counts.images == 2
    assert counts == counted(snn, x, synops=synops)
