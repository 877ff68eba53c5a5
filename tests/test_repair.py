"""Shifts and ranges per channel: proposed and decided on different images, kept only where they help."""

import pytest
import torch
from torch import nn

import fewspikes as fs
from fewspikes.conversion import repairs
from fewspikes.conversion.repairs import _surely_lower, repair
from fewspikes.measure.deal import Images
from fewspikes.measure.side_by_side import images_within, walk
from networks import small, squeeze_excite

IMAGES = (256, 3, 8, 8)


def converted(model, K=3, **options):
    images = torch.randn(IMAGES)
    return fs.convert(model, images, calibration=images, K=K, repair=False, **options)


def output_error(snn, images):
    return float((snn(images) - snn.as_ann()(images)).square().mean())


def test_a_walk_gives_each_site_what_it_gets_in_both_networks():
    snn, images = converted(small()), torch.randn(6, 3, 8, 8)
    seen = {}
    for name, neuron in snn.neurons.items():
        neuron.register_forward_pre_hook(lambda _, args, name=name: seen.__setitem__(name, args[0]))
    snn(images)
    for module in snn.neurons.values():
        module._forward_pre_hooks.clear()
    ann = snn.as_ann()
    exact = {}
    for site, module in zip(snn.sites, ann.layers, strict=True):
        module.register_forward_pre_hook(lambda _, args, name=site.name: exact.__setitem__(name, args[0]))
    ann(images)
    for name, wanted, got, _ in walk(snn, [(images,)]):
        assert torch.equal(wanted[0], exact[name])
        assert torch.equal(got[0], seen[name])


def test_what_is_set_in_a_walk_runs_from_there_on():
    snn, images = converted(small()), torch.randn(6, 3, 8, 8)
    first, second = (site.name for site in snn.sites)
    silent = fs.FSNeuron(fs.FSParameters([1e9], [0.0], [0.0]))
    gates = {}
    for name, _, got, put in walk(snn, [(images,)]):
        gates[name] = got[0]
        if name == first:
            put(silent)
    changed = snn.with_neurons({first: silent})
    seen = []
    changed.neurons[second].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    changed(images)
    assert torch.equal(gates[second], seen[0])


def uneven():
    """`small` with channels of very different sizes, as trained networks have them."""
    model = small()
    with torch.no_grad():
        model.bn1.weight.mul_(2 ** torch.linspace(-3, 2, 8))
        model.bn1.bias.mul_(2 ** torch.linspace(-3, 2, 8))
    return model


def test_repair_lowers_the_outputs_error_on_images_it_never_saw():
    snn = converted(uneven())
    better, found = repair(snn, Images((torch.randn(256, 3, 8, 8),)))
    assert found.kept == "shift and range"
    fresh = torch.randn(256, 3, 8, 8)
    assert output_error(better, fresh) < 0.7 * output_error(snn, fresh)


def test_repair_takes_back_a_mean_that_was_moved():
    snn = converted(small(), K=5)
    first, second = (site.name for site in snn.sites[:2])
    table = snn.neurons[first].code
    louder = fs.FSParameters(table.T, table.h, table.d, 0.2, table.activation, table.domain)
    moved = snn.with_neurons({first: fs.FSNeuron(louder)})  # every output 0.2 too high: the next means move
    better, found = repair(moved, Images((torch.randn(256, 3, 8, 8),)))
    fresh = torch.randn(256, 3, 8, 8)
    assert found.shifted[second] > 0
    assert output_error(better, fresh) < 0.5 * output_error(moved, fresh)


def test_repair_is_never_worse_on_the_images_that_decide():
    for K in (1, 2, 4, 10):
        _, found = repair(converted(small(), K=K), Images((torch.randn(32, 3, 8, 8),)))
        assert found.errors[found.kept] == min(found.errors.values())
        assert found.errors[found.kept] <= found.errors["nothing"]


def test_repair_leaves_the_network_it_was_given_as_it_was():
    snn, images = converted(small()), torch.randn(8, 3, 8, 8)
    before = snn(images)
    repair(snn, Images((torch.randn(IMAGES),)))
    assert torch.equal(snn(images), before)
    assert all(n.shift is None and n.scale is None for n in snn.neurons.values())


def test_only_relu_channels_get_a_range_and_the_report_says_why():
    snn = converted(squeeze_excite(), K=4)
    better, found = repair(snn, Images((torch.randn(IMAGES),)))
    assert all(n.scale is None for n in better.neurons.values())
    assert set(found.not_free) == {site.name for site in snn.sites}
    assert "silu is not positively homogeneous" in found.not_free[snn.sites[0].name]


def test_a_price_saves_spikes():
    snn, images = converted(small(), K=5), torch.randn(IMAGES)
    spikes = []
    for price in (0.0, 0.1):
        better, _ = repair(snn, Images((images,)), spike_price=price)
        with fs.count(better) as counts:
            better(images)
        spikes.append(counts.total)
    assert spikes[1] < 0.9 * spikes[0]


def test_a_range_and_a_shift_fold_into_the_weights_before_and_after():
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double().eval()
    x = torch.randn(50, 5, dtype=torch.float64)
    snn = fs.convert(net, x, calibration=x, K=4, repair=False)
    name = snn.sites[0].name
    shift, scale = torch.randn(6, dtype=torch.float64), torch.rand(6, dtype=torch.float64) + 0.5
    own = snn.with_neurons({name: fs.FSNeuron(snn.neurons[name].code, shift, scale)})
    first, last = nn.Linear(5, 6).double(), nn.Linear(6, 3).double()
    with torch.no_grad():
        first.weight.copy_(net[0].weight / scale[:, None])
        first.bias.copy_((net[0].bias + shift) / scale)
        last.weight.copy_(net[2].weight * scale)
        last.bias.copy_(net[2].bias)
        folded = last(fs.apply(first(x), snn.neurons[name].code)[0])
    assert torch.allclose(own(x), folded, atol=1e-12)


class Sequences(nn.Module):
    """A linear map on [batch, length, features]: its channels are the last axis."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


class Turned(nn.Module):
    """One branch has its channels on axis 1, the other on the last axis: no axis is common."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear, self.head = nn.Conv1d(6, 6, 1), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):  # [batch, 6, 6]
        return self.head(torch.relu(self.conv(x) + self.linear(x)))


class Bare(nn.Module):
    """The neurons' output leaves the network unweighted."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 6)

    def forward(self, x):
        return torch.relu(self.linear(x))


def axis_of(model, x):
    snn = fs.convert(model.eval(), x, K=4, alpha=4.0)
    return snn.channel_axis(snn.sites[0].name)


def test_channels_are_on_the_axis_of_the_map_before():
    assert axis_of(small(), torch.randn(1, 3, 8, 8)) == 1
    assert axis_of(Sequences(), torch.randn(1, 5, 4)) == 2
    assert axis_of(Turned(), torch.randn(1, 6, 6)) is None


def test_a_range_is_not_free_where_the_output_leaves_unweighted():
    snn = fs.convert(Bare().eval(), torch.randn(1, 4), K=4, alpha=4.0)
    assert "unweighted" in snn.scale_is_free(snn.sites[0].name)


def test_sequences_are_repaired_along_their_last_axis():
    torch.manual_seed(1)
    model, x = Sequences().eval(), torch.randn(200, 5, 4)
    snn = fs.convert(model, x, calibration=x, K=2)
    neuron = snn.neurons[snn.sites[0].name]
    assert neuron.axis == 2
    assert neuron.scale is not None
    assert len(neuron.scale) == 6
    assert output_error(snn, x) < output_error(fs.convert(model, x, calibration=x, K=2, repair=False), x)


def test_convert_repairs_by_default_and_says_so_in_the_report():
    images = torch.randn(IMAGES)
    snn = fs.convert(uneven(), images, calibration=images, K=3)
    assert any("channels shifted" in note and "held-out images" in note for note in snn.report.notes)
    plain = fs.convert(uneven(), images, calibration=images, K=3, repair=False)
    assert not any("repair" in note for note in plain.report.notes)


def test_alpha_switches_repairs_off():
    images = torch.randn(IMAGES)
    snn = fs.convert(small(), images, calibration=images, K=3, alpha=4.0)
    assert all(n.shift is None and n.scale is None for n in snn.neurons.values())


def test_a_repaired_network_comes_back_from_its_file_bit_for_bit(tmp_path):
    images = torch.randn(IMAGES)
    snn = fs.convert(uneven(), images, calibration=images, K=3)
    assert any(n.scale is not None for n in snn.neurons.values())
    fs.save(snn, tmp_path / "net.fs")
    again = fs.load(tmp_path / "net.fs")
    assert torch.equal(again(images), snn(images))
    assert again.report.to_json() == snn.report.to_json()


def test_a_shift_of_another_number_of_channels_raises():
    snn = converted(small())
    name = snn.sites[0].name
    with pytest.raises(fs.FewSpikesError, match="a shift of 7 channels for inputs"):
        snn.with_neurons({name: fs.FSNeuron(snn.neurons[name].code, shift=torch.zeros(7))})


def test_few_images_decide_only_what_is_plain_in_each_of_them():
    before = torch.ones(3, 8)
    after = torch.stack([torch.full((8,), 0.9), torch.tensor([-3.0, 3.5] * 4), torch.full((8,), 0.995)])
    assert _surely_lower(after, before).tolist() == [True, False, False]  # plain, by chance, not worth a shift
    assert _surely_lower(after[:, :1], before[:, :1]).tolist() == [False, False, False]  # one image tells no chance


def test_batches_join_a_walk_once_there_is_room_and_find_what_was_set():
    snn, batches = converted(small()), [(torch.randn(4, 3, 8, 8),) for _ in range(5)]
    first = snn.sites[0].name
    doubled = fs.FSNeuron(snn.neurons[first].code, gain=torch.full((8,), 2.0))

    def walked(room):
        found = {}
        for name, ann, got, put in walk(snn, batches, room):
            found[name] = (ann, got)
            if name == first:
                put(doubled)
        return found

    steps = [step.node for step in snn.running_graph.program.steps]
    late = steps.index(snn.sites[1].node) - 1
    whole, parts = walked(None), walked([8 if i < late else 17 for i in range(len(steps))])
    assert [len(ann) for ann, _ in parts.values()] == [2, 4]  # batches of 4: two at first, four once 17 fit
    for name, lists in parts.items():
        for some, every in zip(lists, whole[name], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(some, every, strict=False))


def test_the_room_is_for_the_largest_maps_still_to_come():
    # In float32: 2 numbers in, 6 after the first map, 6 at the site, 1 out; both networks hold each. While the first
    # map runs 2 + 6 are alive, at the site 6 + 6, then 6 + 1.
    snn = fs.convert(nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 1)).eval(), torch.zeros(1, 2))
    assert images_within(snn, 9600) == [100, 100, 171]  # 9600 bytes over 2 x 4 x 12, 12 and 7


def test_a_repair_with_little_memory_uses_fewer_images_at_the_first_sites_and_says_so(monkeypatch):
    snn, images = converted(uneven()), torch.randn(IMAGES)
    monkeypatch.setattr(repairs, "_MEMORY", 1 << 20)
    _, found = repair(snn, Images((images,)))
    assert found.fewest < found.images == len(images)
    assert f"{found.images} images, {found.fewest} at the largest maps" in str(found)
    assert found.errors[found.kept] < found.errors["nothing"]
