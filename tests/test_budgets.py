"""A K for each site: sensitivities, the path of choices, and budgets that are kept."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import fewspikes as fs
from budget_problems import Branched, Joined, Problem, branched, measured
from fewspikes.conversion.allocation import allocate
from fewspikes.conversion.building import calibrate_model
from fewspikes.conversion.chains import Chains
from fewspikes.conversion.ladder import WEIGHTS, Ladder, best, greedy
from fewspikes.fitting import fit_site
from fewspikes.images import loader, open_images
from fewspikes.measure.deal import Images
from fewspikes.measure.sensitivity import curves
from fewspikes.models import load_model
from networks import small


@pytest.mark.parametrize("model", [Joined(), small()], ids=["joined", "skip"])
def test_the_sites_alone_give_the_networks_latency(model):
    snn = fs.convert(model.eval(), torch.zeros(1, 3, 8, 8) if hasattr(model, "conv1") else torch.zeros(1, 6))
    chains = Chains(snn)
    for seed in range(4):
        k = np.random.default_rng(seed).integers(1, 9, len(chains.sites))
        steps = dict(zip(chains.sites, k.tolist(), strict=True))
        mixed = snn.with_neurons({n: fs.FSNeuron(fs.relu_parameters(K, 4.0)) for n, K in steps.items()})
        assert chains.latency(k) == mixed.report.latency_steps


def test_where_branches_meet_the_longer_one_counts():
    chains = Chains(fs.convert(Joined().eval(), torch.zeros(1, 6)))
    assert chains.sites == ("relu_a", "relu_b", "relu_c", "relu_d")
    assert chains.before == [(), (0,), (), (1, 2)]
    assert chains.through(np.array([2, 3, 4, 5])).tolist() == [10, 10, 9, 10]


def test_the_longest_chain_through_each_site_by_hand(problem):
    chains = Chains(problem.snn)
    assert chains.sites == ("relu1", "relu2", "relu3")
    assert chains.longest == 2
    assert chains.through(np.array([3, 4, 2])).tolist() == [7, 7, 2]
    assert chains.through(np.array([3, 4, 9])).tolist() == [7, 7, 9]


def test_with_one_output_the_curves_are_the_measured_errors_and_spikes():
    torch.manual_seed(7)
    single = Problem(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 1)), (6,))
    found = curves(*single.given[:2], single.images, most=6)
    for K in range(1, 7):
        whole = measured(single.build({"1": K}, quick=False), single.images)
        assert found.errors[0, K - 1] == pytest.approx(whole.error, rel=1e-4)
        assert found.spikes[0, K - 1] == pytest.approx(whole.spikes_per_neuron, rel=1e-9)
    assert found.images == 64


def test_the_curves_are_what_each_site_does_to_the_output_alone(problem):
    found = curves(*problem.given[:2], problem.images, most=6)
    (x,) = problem.images.inputs
    wanted = problem.model(x)
    for i, site in enumerate(problem.snn.sites):
        for K in (3, 5):
            alone = problem.snn.running({site.name: fs.FSNeuron(problem.parameters(site.name, K))})
            error = float((alone(x) - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())
            assert found.errors[i, K - 1] == pytest.approx(error, rel=0.3)


def test_the_path_gives_one_step_at_a_time_and_the_site_that_matters_less_waits(problem):
    chains, found = Chains(problem.snn), curves(*problem.given[:2], problem.images, most=8)
    path = greedy(chains, found, WEIGHTS["both"])
    assert path.k[0].tolist() == [1, 1, 1]
    assert path.k[-1].tolist() == [8, 8, 8]
    assert np.diff(path.k, axis=0).sum(1).tolist() == [1] * (len(path) - 1)
    assert [chains.latency(k) for k in path.k] == path.latency.tolist()
    halfway = path.k[len(path) // 2]
    assert halfway[2] < halfway[:2].min()  # its output counts a hundredth


def test_a_site_off_the_longest_chain_costs_no_latency():
    torch.manual_seed(5)
    model = Branched()
    model.aside.weight.data *= 100  # now it matters as much as the others
    wide = Problem(model, (6,))
    path = greedy(Chains(wide.snn), curves(*wide.given[:2], wide.images, most=8), (1.0, 0.01))
    place = int(np.searchsorted(path.latency, 8, side="right")) - 1
    on, then, aside = path.k[place]
    assert on + then == 8
    assert aside > max(on, then)


def test_the_best_of_several_paths_is_that_of_the_least_error_within_both_limits():
    k = np.ones((3, 2), np.int64)
    fast = Ladder(k, np.array([2, 4, 6]), np.array([0.5, 1.0, 2.0]), np.array([0.9, 0.5, 0.1]))
    frugal = Ladder(k, np.array([2, 5, 8]), np.array([0.5, 0.6, 0.7]), np.array([0.9, 0.4, 0.2]))
    assert best([fast, frugal], steps=6) == (fast, 2)
    assert best([fast, frugal], steps=6, spikes=1.0) == (frugal, 1)
    assert best([fast, frugal], steps=4, spikes=1.0) == (fast, 1)
    assert best([fast, frugal], steps=1) is None


def test_mixed_steps_have_less_error_than_one_k_at_the_same_latency(chain):
    for latency in (9, 12, 15):
        mixed = chain.allocate(steps=latency)
        even = chain.build({site.name: latency // 3 for site in chain.snn.sites}, quick=False)
        assert mixed.report.latency_steps == even.report.latency_steps == latency
        assert chain.error(mixed) < 0.9 * chain.error(even)


@pytest.mark.parametrize("latency", [3, 4, 7, 11])
def test_a_limit_of_steps_is_used_up_and_kept(chain, latency):
    assert chain.allocate(steps=latency).report.latency_steps == latency


@pytest.mark.parametrize("limit", [0.5, 0.8, 1.2])
def test_a_limit_of_spikes_is_kept_as_measured_and_nearly_used_up(problem, limit):
    outcome = problem.held(problem.allocate(spikes=limit))
    assert 0.8 * limit <= outcome.spikes_per_neuron <= limit


def test_limits_of_steps_and_spikes_hold_together(chain):
    snn = chain.allocate(steps=12, spikes=0.75)
    assert snn.report.latency_steps <= 12
    assert chain.held(snn).spikes_per_neuron <= 0.75


def scaled(quick, in_full):
    """A problem whose ranges differ between networks built quickly and in full."""
    found = branched(held=256)

    def build(k, quick_one):
        alpha = quick if quick_one else in_full
        neurons = {name: fs.FSNeuron(fs.relu_parameters(K, alpha, "nearest")) for name, K in k.items()}
        return found.snn.with_neurons(neurons)

    found.build = lambda k, quick: build(k, quick)
    return found


def test_spikes_of_the_network_in_full_are_what_counts():
    found = scaled(quick=20.0, in_full=4.0)  # in full it fires twice as much
    assert 0.7 <= found.held(found.allocate(spikes=1.0)).spikes_per_neuron <= 1.0
    found = scaled(quick=4.0, in_full=20.0)
    assert 0.7 <= found.held(found.allocate(spikes=1.0)).spikes_per_neuron <= 1.0


def test_a_network_that_is_better_in_full_gets_fewer_steps():
    found, same = scaled(quick=40.0, in_full=6.0), scaled(quick=6.0, in_full=6.0)
    steps, fewest = (problem.allocate(drop=2.0).report.latency_steps for problem in (found, same))
    assert fewest <= steps <= fewest + 3  # quickly built it would take 6 more, three at each of two sites


@pytest.mark.parametrize("labels", [True, False])
def test_a_limit_of_the_drop_is_kept_with_few_steps(labels):
    found = branched(labels=labels, held=256)
    snn = found.allocate(drop=3.0)
    outcome = found.held(snn)
    assert outcome.loss <= 3.0
    assert (outcome.drop is None) is not labels
    fewer = {site.name: max(site.K - 1, 1) for site in snn.report.sites}
    assert found.held(found.build(fewer, quick=False)).loss > 3.0


class Wide(nn.Module):
    """A narrow chain of two sites, and a wide one beside it: its spikes are many, and its steps cost no latency."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.wide = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(6, 120)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.head, self.other = nn.Linear(12, 5), nn.Linear(120, 5)

    def forward(self, x):
        narrow = self.relu2(self.second(self.relu1(self.first(x))))
        return self.head(narrow) + self.other(self.relu3(self.wide(x)))


def test_with_few_spikes_asked_for_the_same_drop_costs_fewer_of_them():
    torch.manual_seed(5)
    found = Problem(Wide(), (6,), held=256)
    quick, few = (found.held(found.allocate(drop=1.5, minimise=what)) for what in ("steps", "spikes"))
    assert few.loss <= 1.5
    assert few.spikes_per_neuron < 0.9 * quick.spikes_per_neuron


def test_fewest_spikes_keep_to_a_limit_of_steps_too():
    found = branched(held=256)
    snn = found.allocate(drop=5.0, steps=10, minimise="spikes")
    assert found.held(snn).loss <= 5.0
    assert snn.report.latency_steps <= 10


def test_a_drop_of_nothing_can_be_asked_for(problem):
    assert problem.held(problem.allocate(drop=0)).loss <= 0


def test_the_choice_is_explained_in_the_notes(problem):
    notes = "\n".join(problem.allocate(drop=4.0).report.notes)
    assert "K by site for drop=4, by the sensitivity of the output to each site's error (64 images)" in notes
    assert "On 64 held-out images" in notes
    assert "one of 64 images is 1.6 points" in notes
    assert "most at" in notes


def test_exploring_is_quick_and_the_last_network_is_built_in_full(problem):
    problem.built.clear()
    snn = problem.allocate(spikes=0.8)
    assert [quick for _, quick in problem.built].count(False) == 1
    last, quick = problem.built[-1]
    assert not quick
    assert snn.report.k == last


def test_too_few_steps_say_the_least():
    with pytest.raises(fs.FewSpikesError, match=r"steps=1 cannot be met: .* a step at least, so 2 is the least"):
        branched().allocate(steps=1)


def test_too_few_spikes_say_the_fewest(problem):
    with pytest.raises(fs.FewSpikesError, match=r"spikes=0.001 cannot be met: with K = 1 at every site .* 0\.\d+"):
        problem.allocate(spikes=0.001)


def test_a_drop_that_the_steps_do_not_allow_says_the_best_and_what_it_takes(problem):
    message = r"drop=0.1 and steps=4 cannot be met: the least drop is [\d.]+ points, with latency 4 .*up to about"
    with pytest.raises(fs.FewSpikesError, match=message):
        problem.allocate(drop=0.1, steps=4)


def test_a_drop_that_no_steps_can_reach_says_why():
    clipped = branched()
    clipped.parameters = lambda name, K: fs.relu_parameters(K, 0.2, "nearest")  # most inputs lie above 0.2
    with pytest.raises(fs.FewSpikesError, match="points: give more calibration images"):
        clipped.allocate(drop=0.5)
    with pytest.raises(fs.FewSpikesError, match="outside the ranges"):
        clipped.allocate(drop=3.0)


def test_a_drop_needs_classes():
    regression = Problem(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1)), (6,), labels=False)
    assert regression.held(regression.snn).agreement is None
    assert regression.allocate(steps=5).report.latency_steps == 5
    with pytest.raises(fs.FewSpikesError, match="limit of the drop needs one output of shape"):
        regression.allocate(drop=1.0)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "needs a limit: drop, steps or spikes"),
        ({"drop": -1}, "drop must be a finite number >= 0; got -1"),
        ({"drop": float("nan")}, "drop must be"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"steps": 8.5}, "steps must be a whole number"),
        ({"steps": True}, "steps must be a whole number"),
        ({"spikes": 0}, "spikes must be a finite number > 0"),
        ({"spikes": "few"}, "spikes must be"),
        ({"steps": 8, "minimise": "energy"}, "minimise must be 'steps' or 'spikes'"),
        ({"steps": 8, "minimise": "spikes"}, "minimise='spikes' needs a limit of the drop"),
    ],
)
def test_a_budget_out_of_range_is_refused(limits, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        fs.Budget(**limits)


def test_on_resnet20_mixed_steps_beat_one_k_at_the_same_latency(data):
    loaded = load_model("fewspikes:resnet20", str(data / "weights" / "cifar10-resnet20.safetensors"))
    images = open_images(data / "cifar10", "train", loaded.preprocessing, 10, limit=448)
    x = torch.cat([x for x, _ in loader(images, 64)])
    calibration = calibrate_model(loaded.model, x[:1], x[:128])
    snn = fs.convert(loaded.model, x[:1], calibration=calibration, K=4)
    activations = {site.name: site.activation for site in snn.sites}

    @cache
    def parameters(name, K):
        return fit_site(activations[name], K, calibration.sites[name])

    def build(k, quick):
        return snn.with_neurons({name: fs.FSNeuron(parameters(name, K)) for name, K in k.items()})

    held = Images((x[256:],))
    mixed = allocate(snn, parameters, build, Images((x[128:256],)), held, fs.Budget(steps=76))
    even = build(dict.fromkeys(activations, 4), quick=False)
    assert mixed.report.latency_steps == even.report.latency_steps == 76
    assert measured(mixed, held).error < 0.85 * measured(even, held).error


def test_labels_numbered_otherwise_are_noticed_where_a_drop_is_limited():
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5)).eval()
    x = 2 * torch.randn(400, 6)
    labels = model(x).argmax(1)
    with pytest.warns(
        fs.FewSpikesWarning, match="no more than chance: are the labels numbered as the network's classes"
    ):
        fs.convert(model, x, [(x, (labels + 1) % 5)], max_drop=1.0)
    snn = fs.convert(model, x, [(x, labels)], max_drop=1.0)
    assert any("points from the ANN's 100.00%" in note for note in snn.report.notes)


def test_an_output_that_has_no_class_for_each_image_ends_in_one_line():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x):
            return torch.relu(self.linear(x)).t()

    x = torch.randn(64, 8)
    with pytest.raises(fs.FewSpikesError):
        fs.convert(Turned().eval(), x[:2], x, max_drop=1.0)
