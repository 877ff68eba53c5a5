"""One deal of the images: each has one role, and nothing depends on the loader's batches or order."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fewspikes as fs
from budget_problems import branched
from fewspikes.conversion.building import calibrate_model
from fewspikes.measure import deal as dealing
from fewspikes.measure.deal import Deal, Images, batch_size, dealt
from fewspikes.measure.outliers import Outliers
from fewspikes.measure.source import Source
from networks import small, squeeze_excite

X = torch.randn(130, 3, 8, 8, generator=torch.Generator().manual_seed(11))
LABELS = torch.randint(0, 10, (130,), generator=torch.Generator().manual_seed(12))


def numbers(n):
    """So many images that are their own number."""
    return torch.arange(float(n))[:, None]


def source(given, classes=None, shape=(1,)):
    specs = tuple(replace(spec, shape=shape) for spec in branched().snn.inputs)
    return Source(given, specs, torch.float32, "data", None, classes)


def values(batches):
    return [int(v) for inputs, _ in batches for v in inputs[0].flatten()]


def test_batches_of_any_size_become_batches_of_one_size_in_the_same_order():
    for sizes in ([1] * 22, [5, 1, 16], [22], [7, 7, 8]):
        found = list(dealt(source(list(numbers(22).split(sizes))), 8))
        assert [len(inputs[0]) for inputs, _ in found] == [8, 8, 6]
        assert values(found) == list(range(22))


def test_labels_go_with_their_images():
    x, labels = numbers(22), torch.arange(22)
    found = dealt(source([(x[:5], labels[:5]), (x[5:6], labels[5:6]), (x[6:], labels[6:])], classes=22), 4)
    assert all(torch.equal(inputs[0].flatten(), given.float()) for inputs, given in found)


def test_every_image_is_fitted_on_or_held_out_and_what_is_kept_are_the_first():
    x, labels = numbers(22), torch.arange(22)
    deal = Deal(source([(x[:5], labels[:5]), (x[5:6], labels[5:6]), (x[6:], labels[6:])], classes=22), 4, 7, every=4)
    fitted = values(deal)
    assert values(deal.held) == [3, 7, 11, 15, 19]
    assert sorted(fitted + values(deal.held)) == list(range(22))
    assert values(deal.kept) == fitted[:7]
    assert deal.held.labels.tolist() == [3, 7, 11, 15, 19]
    assert deal.left_out == 0


def test_a_loader_that_shuffles_holds_out_what_nobody_fits_on():
    for seed in range(3):
        order = torch.Generator().manual_seed(seed)
        loader = DataLoader(TensorDataset(numbers(50)), batch_size=6, shuffle=True, generator=order)
        deal = Deal(source(loader), 8, every=2)
        fitted = values(deal)
        assert not set(fitted) & set(values(deal.held))
        assert sorted(fitted + values(deal.held)) == list(range(50))


def test_memory_for_images_is_bounded_and_what_is_left_out_is_counted(monkeypatch):
    monkeypatch.setattr(dealing, "BYTES", 40)  # ten images of four bytes
    deal = Deal(source(numbers(30)), 8, every=3)
    assert len(values(deal)) == 20
    assert (len(deal.kept), len(deal.held), deal.left_out) == (10, 10, 10)


def test_images_in_memory_are_split_evenly_and_in_turn():
    images = Images((numbers(20),), torch.arange(20), 4)
    first, second = images.alternating()
    assert (values(first), values(second)) == (list(range(0, 20, 2)), list(range(1, 20, 2)))
    held, rest = images.apart(3)
    assert values(held) == [0, 10, 19]  # 9.5 rounds to even
    assert sorted(values(held) + values(rest)) == list(range(20))
    assert rest.labels.tolist() == values(rest)


def test_a_large_network_gets_small_batches():
    assert [batch_size(n) for n in (1, 188_000, 9_608_704, 1 << 40)] == [64, 64, 27, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([(numbers(4), torch.zeros(4, dtype=torch.int64)), numbers(4)], "some batches of the data have labels"),
        ([(numbers(4), torch.zeros(3, dtype=torch.int64))], "labels must be 4 whole numbers"),
        ([(numbers(4), torch.zeros(4))], "labels must be 4 whole numbers; got torch.float32"),
        ([(numbers(2), [2**63, 0])], "labels must be 2 whole numbers; got a list"),
        ([(numbers(4), torch.full((4,), 3))], "label 3 is outside the network's classes 0 to 2"),
        ([7], "a batch is a tensor, a dict or a tuple; got int"),
    ],
)
def test_labels_that_are_needed_are_checked(given, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        list(source(given, classes=3))


@pytest.mark.parametrize("target", [torch.rand(130), [{"boxes": torch.zeros(2, 4)}] * 130, ["word"] * 130])
def test_targets_that_are_not_needed_are_not_looked_at(target):
    snn = fs.convert(small(), X, [(X, target)], K=3)
    assert fs.convert(small(), X, [(X, target)], max_steps=8).report.latency_steps == 8
    assert fs.distil(snn, [(X, target)], steps=2).report.notes
    with pytest.raises(fs.FewSpikesError, match="labels must be"):
        fs.convert(small(), X, [(X, target)], max_drop=50.0)


def test_labels_of_a_budget_are_held_against_the_classes():
    with pytest.raises(fs.FewSpikesError, match="label 10 is outside the network's classes 0 to 9"):
        fs.convert(small(), X, [(X, LABELS + 1)], max_drop=1.0)


class Subtracted(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, a, b):
        return self.linear(torch.relu(a - 2 * b))


def test_for_two_inputs_a_tuple_or_a_dict_of_them_is_one_batch():
    model, a, b = Subtracted().eval(), torch.randn(24, 4), torch.randn(24, 4)
    given = [(a, b), {"b": b, "a": a}, [(a, b)], [(a[:5], b[:5]), (a[5:], b[5:], torch.zeros(19))]]
    networks = [fs.convert(model, (a, b), images, K=4) for images in given]
    assert all(snn.report.calibration_images == 24 for snn in networks)
    assert all(torch.equal(snn(a, b), networks[0](a, b)) for snn in networks)


def test_for_one_input_a_tuple_of_tensors_is_a_list_of_batches():
    snn = fs.convert(small(), X, (X[:30], X[30:50]), K=3)
    assert snn.report.calibration_images == 50


def loaders():
    """The same images in batches of 1, 7, 32 and 512, and with two layouts in memory that mean the same."""
    data = TensorDataset(X, LABELS)
    return [DataLoader(data, batch_size=size) for size in (1, 7, 32, 512)] + [[(X, LABELS)]]


def same_tables(networks):
    first, *others = [
        {name: (n.code, *(v.tolist() for v in n.by_channel.values())) for name, n in snn.neurons.items()}
        for snn in networks
    ]
    return all(other == first for other in others)


@pytest.mark.filterwarnings("ignore:the ANN names the class")  # these labels mean nothing
@pytest.mark.parametrize(
    "options",
    [{"K": 4}, {"K": 4, "spike_price": 0.02}, {"max_steps": 9}, {"max_drop": 60.0}],
    ids=["K", "price", "steps", "drop"],
)
def test_the_converted_network_does_not_depend_on_the_loaders_batches(options):
    networks = [fs.convert(small(), X[:1], loader, **options) for loader in loaders()]
    assert same_tables(networks)
    assert len({str(snn.report.to_json()) for snn in networks}) == 1


def test_searched_codes_and_calibration_do_not_depend_on_the_loaders_batches():
    seen = [calibrate_model(squeeze_excite(), X[:1], loader).sites for loader in loaders()]
    seen = [{name: histogram.to_json() for name, histogram in sites.items()} for sites in seen]
    assert all(one == seen[0] for one in seen)
    assert same_tables(fs.convert(squeeze_excite(), X[:1], loader, K=3, effort="quick") for loader in loaders())


def test_distilling_does_not_depend_on_the_loaders_batches():
    snn = fs.convert(small(), X[:1], X, K=3)
    assert same_tables(fs.distil(snn, loader, steps=12) for loader in loaders())


def test_evaluation_does_not_depend_on_the_loaders_batches():
    snn = fs.convert(small(), X[:1], X, K=3)
    reports = [fs.evaluate(snn, loader).to_json() for loader in loaders()]
    for report in reports:
        del report["ann_images_per_second"], report["snn_images_per_second"]
    assert all(report == reports[0] for report in reports)


def test_in_a_conversion_no_image_held_out_is_calibrated_on_or_repaired_with():
    # Images held out are measured on only: made wild, they change neither codes nor shifts.
    wild = X.clone()
    wild[3::4] *= 6  # from 8 on they would be left out and told
    networks = [fs.convert(small(), X[:1], images, max_steps=8) for images in (X, wild)]
    assert networks[0].report.k == networks[1].report.k
    assert same_tables(networks)


@pytest.mark.parametrize("wild", [lambda x: 100 * x, lambda x: 127.5 + 50 * x])
def test_an_image_far_larger_than_the_others_gets_no_role_whatever_the_loaders_batches(wild):
    x = torch.randn(200, 3, 4, 4)
    x[77] = wild(x[77])
    for size in (1, 7, 32, 200):
        deal = Deal(source(x.split(size), shape=(3, 4, 4)), 16, outliers=True)
        assert sum(len(inputs[0]) for inputs, _ in deal) == 199
        assert torch.equal(deal.kept.inputs[0], torch.cat([x[:77], x[78:]]))
        assert [place for place, _ in deal.outliers.found] == [77]
    assert str(deal.outliers).startswith("1 of 200 images is far larger than the middle one: number 77 (")


def test_data_of_many_sizes_have_no_outliers_nor_have_small_images():
    sizes = torch.exp(torch.randn(500) * 2)  # between them a factor of some thousands
    found = Outliers()
    assert not found.far((torch.randn(500, 20) * sizes[:, None],)).any()
    dark = torch.rand(50, 20)
    dark[:20] *= 0.001
    assert not Outliers().far((dark,)).any()


@pytest.mark.parametrize(("images", "wild"), [(20, 3), (100, 4), (100, 12), (400, 40)])
def test_up_to_a_fifth_of_the_images_may_be_far(images, wild):
    x = torch.randn(images, 20)
    x[torch.randperm(images)[:wild]] *= 255
    found = Outliers()
    assert sum(int(found.far((batch,)).sum()) for batch in x.split(64)) == wild
    assert str(found).startswith(f"{wild} of {images} images are far larger than the middle one: number ")


def test_a_second_kind_of_image_is_fitted_to_and_told():
    two_kinds, found = torch.randn(60, 20), Outliers()
    two_kinds[::3] *= 100
    assert not found.far((two_kinds,)).any()
    assert str(found).startswith(
        "20 of 60 images are far larger than the middle one; 20 of them are too many to be left"
    )


def test_of_three_images_none_is_far_and_whole_numbers_are_not_measured():
    x = torch.ones(3, 5)
    x[0] = 1e6
    assert not Outliers().far((x,)).any()
    assert not Outliers().far((torch.randint(0, 10**6, (50, 4)),)).any()


def test_no_result_depends_on_the_number_of_threads():
    # Layers of 2^18 numbers in a batch: large sums are dealt to all threads.
    layers = nn.Conv2d(3, 16, 3), nn.SiLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    model, x = nn.Sequential(*layers, nn.Linear(64, 5)).eval(), torch.randn(144, 3, 20, 20)
    labels = torch.randint(0, 5, (144,))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            plain = fs.convert(model, x[:1], x, K=4, effort="quick")
            learned = fs.distil(plain, x, steps=4, spike_price=0.01)
            within = fs.convert(model, x[:1], [(x, labels)], max_steps=16, effort="quick")
            found.append([everything_about(snn, (x, labels)) for snn in (plain, learned, within)])
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def everything_about(snn, batch):
    """Codes, what belongs to the channels, what the report says, and what evaluation finds; nothing of time."""
    layers = {
        name: (neuron.code.to_json(), {kind: values.tolist() for kind, values in neuron.by_channel.items()})
        for name, neuron in snn.neurons.items()
    }
    notes = [note for note in snn.report.notes if not note.startswith("distilled")]  # that one tells the seconds
    measured = fs.evaluate(snn, [batch]).to_json()
    return layers, notes, snn.diagnosis, {k: v for k, v in measured.items() if not k.endswith("per_second")}
