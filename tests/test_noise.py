"""Faults: what each one does to a spike, how often, and that every engine has the same ones."""

import json
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
import torch
from torch import nn

import fewspikes as fs
from fewspikes.base.moments import at_moment
from fewspikes.network.image_axes import ImageAxis
from fewspikes.neuron import chance
from fewspikes.neuron.chance import bits, cases, happens, key, normals
from fewspikes.neuron.faulty import FaultyNeuron
from fewspikes.simulation.events import _deliver
from fewspikes.simulation.simulation import Pipeline, simulate
from networks import Small, SqueezeExcite

CODE = fs.relu_parameters(K=3, alpha=8.0)  # T = h = d = 4, 2, 1
FRONT = ImageAxis(0)
ENGINES = ("steps", "pipeline", "events", Pipeline(2))
EACH_FAULT = (
    {"lost": 0.1},
    {"late": 0.1},
    {"spurious": 0.05},
    {"threshold_noise": 0.05},
    {"threshold_noise": 0.05, "each": "step"},
    {"weight_noise": 0.1},
    {"stuck": 0.1},
    {"stuck": 0.05, "stuck_at": "firing"},
    {"lost": 0.1, "late": 0.2, "spurious": 0.02, "threshold_noise": 0.02, "weight_noise": 0.02, "stuck": 0.02},
)


def layer(**settings):
    return FaultyNeuron(fs.FSNeuron(CODE), fs.Faults(**settings), "site", FRONT)


def seven(**settings):
    """What a layer makes of 7 (1 1 1), 5 (1 0 1), 2 (0 1 0) and -1 (0 0 0)."""
    return layer(**settings)(torch.tensor([[7.0, 5.0, 2.0, -1.0]]))[0].tolist()


def within(found, of, probability):
    """Five standard deviations of a binomial count."""
    return abs(found - of * probability) <= 5 * sqrt(of * probability * (1 - probability))


class Gates(nn.Module):
    """An LSTM and a head, at each time step."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.relu(self.lstm(x)[0]))


class Heads(nn.Module):
    """Attention of two heads, whose layers have [images x heads, ...]."""

    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.relu(self.attention(x, x, x)[0]))


def converted(model, shape, circuits=None):
    torch.manual_seed(0)
    images = torch.randn(24, *shape, dtype=torch.float64)
    snn = fs.convert(model().double().eval(), images, images, K=5, circuits=circuits, effort="quick")
    return snn, images[:4]


NETWORKS = {
    "skip": (Small, (3, 6, 6), None),
    "gate": (SqueezeExcite, (3, 6, 6), "gated"),
    "loop": (Gates, (3, 4), "gated"),
    "heads": (Heads, (3, 8), "gated"),
}


@pytest.fixture(scope="module")
def networks():
    return {name: converted(*given) for name, given in NETWORKS.items()}


@pytest.fixture(scope="module")
def chain():
    return converted(
        lambda: nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 3)), (6,)
    )


# by hand: T = h = d = 4, 2, 1


def test_no_fault_no_difference():
    x = torch.randn(50, 9) * 5
    assert torch.equal(layer()(x), fs.FSNeuron(CODE)(x))


def test_what_is_lost_takes_its_weight_away_and_the_reset_stays():
    x = torch.full((200, 5), 7.0)
    y = layer(lost=0.5)(x)
    kept = [~happens(bits(key(0, "lost", "site", 0, t), range(200), range(5)), 0.5) for t in range(3)]
    assert torch.equal(y, 4 * kept[0] + 2 * kept[1] + 1.0 * kept[2])
    assert set(y.unique().tolist()) == set(map(float, range(8)))


def test_all_lost_leaves_silence():
    assert seven(lost=1.0) == [0, 0, 0, 0]


def test_a_late_spike_is_worth_the_next_step_and_nothing_at_the_last():
    # 1 1 1 comes as . 1 1: 2 + 1; 1 0 1 as . 1 .: 2; 0 1 0 as . . 1: 1
    assert seven(late=1.0) == [3, 2, 1, 0]


def test_a_late_spike_and_another_one_are_both_heard():
    x = torch.full((400, 1), 7.0)
    y = layer(late=0.5)(x).flatten()
    late = [happens(bits(key(0, "late", "site", 0, t), range(400), range(1)), 0.5).flatten() for t in range(3)]
    assert torch.equal(y, 4.0 * ~late[0] + 2.0 * (~late[1]) + 2.0 * late[0] + 1.0 * ~late[2] + late[1])
    assert set(y.unique().tolist()) == {3, 4, 5, 6, 7}  # (4 or 2) + (2 or 1) + (1 or 0)


def test_a_late_spike_is_lost_or_not_by_the_draw_of_the_step_that_it_was_sent_in():
    y = layer(late=1.0, lost=0.5)(torch.full((300, 1), 7.0)).flatten()
    kept = [~happens(bits(key(0, "lost", "site", 0, t), range(300), range(1)), 0.5).flatten() for t in range(2)]
    assert torch.equal(y, 2.0 * kept[0] + 1.0 * kept[1])


def test_spurious_spikes_fill_all_silence_and_reset_nothing():
    assert seven(spurious=1.0) == [7, 7, 7, 7]


def test_stuck_neurons_say_nothing_or_all():
    assert seven(stuck=1.0) == [0, 0, 0, 0]
    assert seven(stuck=1.0, stuck_at="firing") == [7, 7, 7, 7]


def test_spikes_are_counted_as_they_are_sent():
    counted, seen = [], []
    for settings in ({"lost": 1.0}, {"late": 1.0}, {"spurious": 1.0}, {"stuck": 1.0, "stuck_at": "firing"}):
        neurons = layer(**settings)
        neurons.count_hooks.append(lambda spikes, outside: counted.append(spikes))
        neurons.spike_hooks.append(lambda x, spikes: seen.append(spikes.tolist()))
        neurons(torch.tensor([[7.0, 5.0, 2.0, -1.0]]))
    assert counted == [6, 6, 6, 12]
    assert seen == [*[[[3, 2, 1, 0]]] * 3, [[3, 3, 3, 3]]]


def test_a_threshold_with_noise_is_T_times_one_plus_s_n():
    n = normals(bits(key(0, "thresholds", "site", 0), range(1000)))
    x = torch.full((1, 1000), 4.0, dtype=torch.float64)
    first = layer(threshold_noise=0.1)(x)[0] >= 4
    assert torch.equal(first, 4.0 * (1 + 0.1 * n) <= 4.0)
    assert 400 < int(first.sum()) < 600


def test_noise_once_is_the_same_for_all_images_and_anew_it_is_not():
    x = torch.linspace(0, 8, 500, dtype=torch.float64).expand(4, -1)
    once, anew = (layer(threshold_noise=0.1, each=each)(x) for each in ("network", "step"))
    assert torch.equal(once, once[:1].expand(4, -1))
    assert not torch.equal(anew[0], anew[1])


def test_a_nan_stays_one():
    assert layer(lost=0.5, stuck=1.0, stuck_at="firing")(torch.tensor([[torch.nan]])).isnan().all()


def test_gradients_pass_as_they_do_without_faults():
    x, same = (torch.rand(3, 4, dtype=torch.float64).mul_(8).requires_grad_() for _ in range(2))
    same.data.copy_(x.data)
    layer()(x).sum().backward()
    fs.FSNeuron(CODE)(same).sum().backward()
    assert torch.equal(x.grad, same.grad)
    assert bool(x.grad.any())


# chance


def scalar(start, *numbers):
    """SplitMix64's finaliser, in plain whole numbers."""
    found = start
    for number in numbers:
        found = (found + number * 0x9E3779B97F4A7C15) % 2**64
        found = (found ^ found >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        found = (found ^ found >> 27) * 0x94D049BB133111EB % 2**64
        found ^= found >> 31
    return found


@pytest.mark.parametrize("counts", [(), (range(5),), (range(3, 9), range(70_000)), (range(2), range(3), range(4))])
def test_bits_are_the_same_by_torch_alone(counts):
    start = key(7, "lost", "site", 0, 2)
    drawn = bits(start, *counts)
    assert torch.equal(drawn, chance._bits_there(start, counts, torch.device("cpu")))
    below = chance._right(drawn, 11) < chance.cases(0.3)
    assert torch.equal(happens(drawn, 0.3), below)
    assert torch.equal(chance.happening(start, *counts, probability=0.3), below)


def test_bits_are_splitmix_and_the_same_everywhere():
    drawn = bits(key(7, "lost", "a"), range(2, 5), range(6)).numpy().view(np.uint64)
    assert drawn.tolist() == [[scalar(key(7, "lost", "a"), i, n) for n in range(6)] for i in range(2, 5)]
    assert scalar(0, 1) == 0xE220A8397B1DCDAF  # the first number of SplitMix64 from seed 0, as published


@pytest.mark.parametrize("probability", [0.001, 0.01, 0.1, 0.5, 0.99])
def test_rates_are_within_binomial_bounds(probability):
    drawn = bits(key(1, "x"), range(300), range(1000))
    assert within(int(happens(drawn, probability).sum()), 300_000, probability)
    assert within(int(happens(drawn[1:] ^ drawn[:-1], 0.5).sum()), 299_000, 0.5)


def test_normal_numbers_are_normal():
    n = normals(bits(key(2, "n"), range(1_000_000)))
    assert abs(float(n.mean())) < 0.005
    assert abs(float(n.var()) - 1) < 0.01
    assert within(int((n.abs() > 2).sum()), 1_000_000, 0.0455)


@pytest.mark.parametrize(("kind", "rate"), [("lost", 0.03), ("late", 0.2), ("spurious", 0.01), ("stuck", 0.07)])
def test_faults_come_as_often_as_is_said(kind, rate):
    code = fs.FSParameters([1.0, 1.0], [0.0, 0.0], [1.0, 1000.0])
    neurons = FaultyNeuron(fs.FSNeuron(code), fs.Faults(**{kind: rate}), "site", FRONT)
    silent = kind == "spurious"
    y = neurons(torch.full((100, 400), 0.0 if silent else 2.0, dtype=torch.float64))
    if kind == "stuck":
        assert torch.equal(y, y[:1].expand(100, -1))
        assert within(int((y[0] == 0).sum()), 400, rate)
    else:
        assert within(int((y % 1000 == int(silent)).sum()), 40_000, rate)


# networks


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("settings", EACH_FAULT, ids=lambda settings: " ".join(settings))
def test_all_engines_have_the_same_faults(networks, network, settings):
    snn, x = networks[network]
    faulty = fs.perturb(snn, seed=5, **settings)
    with torch.no_grad(), fs.count(faulty) as counts:
        y = faulty(x)
    assert not torch.equal(y, snn(x))
    spikes = None
    for engine in ENGINES if len(settings) > 3 or network == "skip" else ("steps", "events"):
        trace = simulate(faulty, x, engine)
        assert torch.allclose(trace.output, y, rtol=0, atol=1e-12)
        assert trace.counts.by_site == counts.by_site
        spikes = spikes or trace.spikes
        assert all(torch.equal(spikes[name], own) for name, own in trace.spikes.items())


def test_where_sums_are_exact_outputs_are_equal_bit_for_bit():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 3)).double().eval()
    for weight in model.parameters():
        weight.data = (weight.data * 16).round() / 16
    x = (torch.randn(5, 6, dtype=torch.float64) * 16).round() / 16
    faulty = fs.perturb(fs.convert(model, x, K=8, alpha=4.0), lost=0.1, late=0.1, spurious=0.05, stuck=0.05)
    for engine in ENGINES:
        assert torch.equal(simulate(faulty, x, engine).output, faulty(x))


def test_float32_fires_the_same_in_all_engines_on_a_grid():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 3, bias=False), nn.ReLU()).eval()
    for weight in model.parameters():
        weight.data = torch.eye(3)
    x = torch.tensor([[0.5, 1.25, 3.0]]).expand(40, -1).contiguous()
    faulty = fs.perturb(fs.convert(model, x, K=6, alpha=4.0), lost=0.3, late=0.2, threshold_noise=0.1, each="step")
    for engine in ENGINES:
        assert torch.equal(simulate(faulty, x, engine).output, faulty(x))


def test_faults_do_not_depend_on_portions(chain, monkeypatch):
    snn, x = chain
    faulty = fs.perturb(snn, lost=0.2, late=0.2, threshold_noise=0.1, each="step")
    whole = simulate(faulty, x, "steps")
    monkeypatch.setattr("fewspikes.simulation.simulation.batch_size", lambda neurons: 3)
    assert torch.equal(simulate(faulty, x, "steps").output, whole.output)
    with at_moment(first=2):
        assert torch.allclose(faulty(x[2:]), whole.output[2:], rtol=0, atol=1e-12)
    assert not torch.allclose(faulty(x[2:]), whole.output[2:], rtol=0, atol=1e-6)


def test_evaluation_does_not_depend_on_the_loaders_batches(chain):
    snn, _ = chain
    images = torch.randn(30, 6, dtype=torch.float64)
    faulty = fs.perturb(snn, lost=0.2)
    found = {fs.evaluate(faulty, images.split(size)).relative_error for size in (7, 30)}
    assert len(found) == 1


def test_time_steps_of_a_loop_have_faults_of_their_own(networks):
    snn, _ = networks["loop"]
    faulty = fs.perturb(snn, spurious=0.2)
    gates = [name for name in faulty.neurons if faulty.structure.loop(name)]
    heard = {name: [] for name in gates}
    for name in gates:
        faulty.neurons[name].register_forward_hook(
            lambda _, x, y, name=name: heard[name].append(y - snn.neurons[name](x[0]))
        )
    faulty(torch.zeros(4, 3, 4, dtype=torch.float64))
    for name in gates:
        first, second, third = heard[name]
        assert not torch.equal(first != 0, second != 0)
        assert not torch.equal(second != 0, third != 0)


def test_a_seed_tells_everything(chain):
    snn, x = chain
    first, same, other = (fs.perturb(snn, lost=0.2, weight_noise=0.1, seed=seed)(x) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_weight_noise_is_in_the_weights_alone_and_the_clean_network_stays(chain):
    snn, x = chain
    before = {name: value.clone() for name, value in snn.tensors.items()}
    faulty = fs.perturb(snn, weight_noise=0.1)
    changed = {name for name, value in faulty.tensors.items() if not torch.equal(value, before[name])}
    assert changed == {"weights.0.weight", "weights.2.weight", "weights.4.weight"}
    ratio = torch.cat([(faulty.tensors[name] / before[name]).flatten() for name in changed]) - 1
    assert abs(float(ratio.std()) - 0.1) < 0.01
    assert all(torch.equal(value, before[name]) for name, value in snn.tensors.items())
    assert torch.equal(faulty.as_ann()(x), snn.as_ann()(x))


def copying(outputs):
    """One neuron, whose input comes out so many times."""
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, outputs)).double().eval()
    with torch.no_grad():
        for weight, value in zip(model.parameters(), (1.0, 0.0, 1.0, 0.0), strict=True):
            weight.fill_(value)
    return model


def test_weights_with_noise_of_each_step_average_out():
    x = torch.full((1, 1), 70.0, dtype=torch.float64)  # so large that noise of the first weight changes no spike
    snn = fs.convert(copying(100), x, K=3, alpha=8.0)  # three spikes, worth 4, 2 and 1

    def deviation(each):
        return float(simulate(fs.perturb(snn, weight_noise=0.01, each=each), x).output.sub(7).square().mean().sqrt())

    assert deviation("network") == pytest.approx(0.01 * 7, rel=0.3)
    assert deviation("step") == pytest.approx(0.01 * 21**0.5, rel=0.3)  # of 4, 2 and 1, each with its own noise


def test_weights_with_noise_of_each_step_are_others_at_each_step():
    model = copying(1)
    x = torch.full((1, 1), 70.0, dtype=torch.float64)  # so large that noise of the first weight changes no spike
    snn = fs.convert(model, x, K=3, alpha=8.0)  # three spikes, worth 4, 2 and 1
    running = simulate(fs.perturb(snn, weight_noise=0.1, each="step"), x, "steps").running.flatten()
    noise = running.diff(prepend=torch.zeros(1)) / torch.tensor([4.0, 2.0, 1.0]) - 1
    assert noise.abs().max() < 0.5
    assert len(set(noise.round(decimals=9).tolist())) == 3


def test_weights_that_take_numbers_have_one_draw_of_the_noise_of_each_step():
    model = copying(1)
    x = torch.tensor([[0.1], [0.35]], dtype=torch.float64)
    snn = fs.convert(model, x, K=12, alpha=1.0)  # fine steps: the output is the first weight's product, nearly
    faulty = [fs.perturb(snn, weight_noise=0.1, each="step", seed=seed) for seed in range(4)]
    d = torch.tensor(snn.neurons["1"].code.d).view(-1, 1, 1)
    taken = [(simulate(one, x).spikes["1"] * d).sum(0).flatten() for one in faulty]
    factors = [value / x.flatten() - 1 for value in taken]
    for noise in factors:
        assert torch.allclose(noise[:1], noise[1:], atol=2**-8)  # the same for all images
        assert 1e-3 < noise.abs().max() < 0.5
    assert len({round(float(noise[0]), 4) for noise in factors}) == 4


def test_spikes_lost_per_synapse_are_fewer_synaptic_operations(chain):
    snn, x = chain
    clean = simulate(snn, x, "events").counts
    halved = simulate(fs.perturb(snn, lost=0.25, at="synapse"), x, "events").counts
    first = next(iter(snn.neurons))
    assert halved.by_site[first] == clean.by_site[first]
    one = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 50)).double().eval()
    snn = fs.convert(one, x, x, K=5, effort="quick")
    clean, lost = (simulate(net, x, "events") for net in (snn, fs.perturb(snn, lost=0.25, at="synapse")))
    assert within(clean.counts.synops - lost.counts.synops, clean.counts.synops, 0.25)
    deaf = simulate(fs.perturb(snn, lost=1.0, at="synapse"), x, "events")
    assert deaf.counts.synops == 0
    assert torch.allclose(deaf.output, simulate(fs.perturb(snn, lost=1.0), x, "events").output)


def test_a_synapse_loses_spikes_that_others_of_the_same_neuron_get():
    model = copying(60)
    x = torch.full((1, 1), 4.0, dtype=torch.float64)
    snn = fs.convert(model, x, K=3, alpha=8.0)  # one spike, worth 4
    output = simulate(fs.perturb(snn, lost=0.5, at="synapse"), x, "events").output[0]
    assert set(output.tolist()) == {0.0, 4.0}
    assert within(int((output == 0).sum()), 60, 0.5)


def test_a_synapse_has_its_losses_whatever_others_there_are():
    heard, start, lost = np.arange(2), np.uint64(key(3, "synapse")), np.uint64(cases(0.5))

    def delivered(*targets):
        first, target = np.cumsum([0, *map(len, targets)]), np.concatenate(targets).astype(np.int32)
        sums = np.zeros(40)
        done = _deliver(heard, 1.0, first, target, np.ones(len(target)), sums, start, lost)
        assert done == sums.sum()
        return sums

    shared = np.arange(20)
    every, some = delivered(np.arange(40), np.arange(0)), delivered(shared, np.arange(0))
    assert 0 < some.sum() < 20
    assert (some[:20] == every[:20]).all()
    assert (delivered(shared[::2], shared)[1:20:2] == delivered(np.arange(0), shared)[1:20:2]).all()


def test_a_perturbed_network_keeps_its_faults_with_other_neurons(chain):
    snn, x = chain
    faulty = fs.perturb(snn, lost=0.3, weight_noise=0.1)
    made = faulty.with_neurons({})
    assert made.faults == faulty.faults
    assert torch.equal(made(x), faulty(x))
    assert torch.equal(made.with_faults(None)(x), snn(x))


def test_inputs_of_another_length_have_faults_too():
    snn, _ = converted(Gates, (5, 4))
    faulty, x = fs.perturb(snn, lost=0.2), torch.randn(3, 7, 4, dtype=torch.float64)
    assert torch.allclose(simulate(faulty, x, "events").output, faulty(x), rtol=0, atol=1e-12)


def test_faults_are_plain_data_and_back():
    faults = fs.Faults(lost=0.1, each="step", seed=4)
    assert fs.Faults.from_json(json.loads(json.dumps(faults.to_json()))) == faults
    assert replace(faults, lost=0.2).lost == 0.2


def test_settings_a_dict_and_faults_are_the_same(chain):
    snn, x = chain
    one, two, three = (fs.perturb(snn, lost=0.2), fs.perturb(snn, {"lost": 0.2}), fs.perturb(snn, fs.Faults(lost=0.2)))
    assert torch.equal(one(x), two(x))
    assert torch.equal(one(x), three(x))


# bad input


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"lost": 1.5}, "lost must be from 0 to 1; got 1.5"),
        ({"late": -0.1}, "late must be from 0 to 1; got -0.1"),
        ({"spurious": float("nan")}, "spurious must be a finite number; got nan"),
        ({"stuck": "1%"}, "stuck must be a finite number; got '1%'"),
        ({"threshold_noise": -1}, "threshold_noise must be from 0 to 1000; got -1"),
        ({"weight_noise": 1e9}, "weight_noise must be from 0 to 1000"),
        ({"each": "image"}, "each must be 'network' or 'step'; got 'image'"),
        ({"at": "soma"}, "at must be 'axon' or 'synapse'; got 'soma'"),
        ({"stuck_at": 1}, "stuck_at must be 'silence' or 'firing'; got 1"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"dropped": 0.1}, "there is no fault 'dropped'; there are lost, late"),
    ],
)
def test_out_of_range_is_refused_in_one_line(chain, settings, told):
    with pytest.raises(fs.FewSpikesError) as error:
        fs.perturb(chain[0], **settings)
    assert str(error.value).startswith(told)
    assert "\n" not in str(error.value)


def test_what_an_engine_cannot_have_is_refused_with_the_remedy(chain):
    snn, x = chain
    synapses, weights = fs.perturb(snn, lost=0.1, at="synapse"), fs.perturb(snn, weight_noise=0.1, each="step")
    with pytest.raises(fs.FewSpikesError, match=r'not for the network itself; use simulate\(snn, x, engine="events"\)'):
        synapses(x)
    with pytest.raises(fs.FewSpikesError, match=r'not for engine="steps"; use simulate\(snn, x, engine="events"\)'):
        simulate(synapses, x, "steps")
    with pytest.raises(fs.FewSpikesError, match=r'not for the network itself; use simulate\(snn, x, engine="steps"\)'):
        weights(x)
    with pytest.raises(fs.FewSpikesError, match=r'not for engine="pipeline"; use'):
        simulate(weights, x, Pipeline(2))


def test_what_needs_a_clean_network_says_so(chain, tmp_path):
    faulty, x = fs.perturb(chain[0], lost=0.1), chain[1]
    for refused in (
        lambda: fs.save(faulty, tmp_path / "net.fs"),
        lambda: fs.perturb(faulty, late=0.1),
        lambda: fs.to_integer(faulty),
        lambda: fs.distil(faulty, x, steps=1),
    ):
        with pytest.raises(fs.FewSpikesError, match="takes a network without faults; keep the clean one"):
            refused()
    with pytest.raises(fs.FewSpikesError, match="not both"):
        fs.perturb(chain[0], fs.Faults(), lost=0.1)
    with pytest.raises(fs.FewSpikesError, match="perturb needs a converted network; got Linear"):
        fs.perturb(nn.Linear(1, 1), lost=0.1)


@pytest.mark.parametrize("settings", [one for one in EACH_FAULT if one != {"weight_noise": 0.1}], ids=str)
def test_with_a_gradient_a_layer_computes_the_same(settings):
    neuron = FaultyNeuron(fs.FSNeuron(CODE, scale=torch.tensor([0.5, 2.0, 1.5])), fs.Faults(**settings), "site", FRONT)
    x = torch.randn(50, 3, 20) * 8
    x[0, 0, 0] = float("nan")
    y = neuron(x.clone().requires_grad_())
    assert y.requires_grad
    assert torch.equal(neuron(x).nan_to_num(99.0), y.detach().nan_to_num(99.0))
