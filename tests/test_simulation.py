"""The network spike by spike: the same spikes by every engine; steps, delays and intervals by hand."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fewspikes as fs
from captured import Net
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.moments import Moment
from fewspikes.conversion.conversion import convert
from fewspikes.network.timing import interval_steps, latency_steps
from fewspikes.neuron.firing import Firing
from fewspikes.reach.boxes import identity
from fewspikes.reach.pairs import pairs_of
from fewspikes.simulation.plan import Plan
from fewspikes.simulation.run import Batch
from fewspikes.simulation.schedule import Schedule
from fewspikes.simulation.simulation import Pipeline, simulate
from fewspikes.simulation.steps import fired
from fewspikes.simulation.trace import Recording

ENGINES = ("steps", "pipeline", "events", Pipeline(membranes=2))


class Recurrent(nn.Module):
    """Two directions of an LSTM, and a rectified output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 4, bidirectional=True, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.lstm(x)[0][:, -1]))


class Attending(nn.Module):
    """A layer of a transformer, whose sequences come first inside."""

    def __init__(self, first: bool = True) -> None:
        super().__init__()
        self.layer, self.first = nn.TransformerEncoderLayer(8, 2, 12, batch_first=first), first
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x if self.first else x.transpose(0, 1))
        return self.out(torch.relu(x.mean(1 if self.first else 0)))


def pictures() -> Net:
    def forward(x: Tensor, a: nn.Module, b: nn.Module, squeeze: nn.Module, excite: nn.Module, out: nn.Module) -> Tensor:
        x = torch.nn.functional.silu(a(x))
        x = x * torch.sigmoid(excite(torch.relu(squeeze(x.mean((2, 3), keepdim=True)))))
        x = torch.relu(b(x) + x)
        return out(torch.nn.functional.max_pool2d(x, 2).flatten(1))

    convolutions = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)
    return Net(forward, *convolutions, nn.Linear(16, 3))


NETWORKS = {
    "pictures": (pictures, (2, 6, 6)),
    "transformer": (Attending, (4, 8)),
    "sequence first": (lambda: Attending(False), (4, 8)),
    "recurrent": (Recurrent, (4, 3)),
}


@pytest.fixture(
    scope="module", params=[(name, circuits) for name in NETWORKS for circuits in (None, "gated", "neurons")]
)
def converted(request: pytest.FixtureRequest) -> tuple[fs.SpikingNetwork, Tensor]:
    name, circuits = request.param
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    x = torch.randn(24, *shape, dtype=torch.float64)
    net = make().double().eval()
    return convert(net, x, x, K=5, circuits=circuits, effort="quick", repair=False), x[:4]


def trains(snn: fs.SpikingNetwork, x: Tensor) -> dict[str, list[Tensor]]:
    """The spikes of the fast kernels' gate inputs, by site and time step of its loop."""
    found: dict[str, list[Tensor]] = {name: [] for name in snn.neurons}
    hooks = [
        neuron.register_forward_pre_hook(
            lambda module, given, name=name: found[name].append(fs.encode(module.gate(given[0]), module.code))
        )
        for name, neuron in snn.neurons.items()
    ]
    snn(x)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_every_engine_fires_the_spikes_of_the_fast_kernels(converted, engine) -> None:
    snn, x = converted
    with fs.count(snn, synops=True) as counts:
        wanted = snn(x)
    trace, expected = simulate(snn, x, engine), trains(snn, x)
    torch.testing.assert_close(trace.output, wanted, rtol=0, atol=1e-12)
    for name, spikes in trace.spikes.items():
        looped = snn.structure.loop(name) is not None
        axis = snn.structure.image_axes[name]
        own = [
            torch.stack([axis.in_front(z).view(len(x), *spikes.shape[2 + looped :]) for z in one])
            for one in expected[name]
        ]
        assert torch.equal(spikes, torch.stack(own) if looped else own[0]), name
    assert trace.counts.by_site == counts.by_site
    assert {name: int(steps.sum()) for name, steps in trace.per_step.items()} == counts.by_site
    if engine == "events":  # one by one, and by what the graph says
        assert trace.counts.synops == counts.synops


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_gate_inputs_outside_the_domain_are_counted(converted, engine) -> None:
    snn, x = converted[0], 3 * converted[1]
    with fs.count(snn) as counts:
        snn(x)
    found = simulate(snn, x, engine).counts
    assert sum(counts.clipped_by_site.values()) > 0
    assert (found.clipped_by_site, found.inputs_by_site) == (counts.clipped_by_site, counts.inputs_by_site)


def test_the_answer_is_there_when_the_report_says_and_images_follow_as_it_says(converted) -> None:
    snn, x = converted
    trace = simulate(snn, x, "pipeline")
    assert (trace.answer, trace.interval) == (snn.report.latency_steps, snn.report.interval_steps)


def test_a_neuron_may_gate_several_elements_of_one_sum() -> None:
    def forward(x: Tensor, a: nn.Module, out: nn.Module) -> Tensor:
        gate = torch.relu(x)
        return out(torch.bmm(torch.cat([gate, gate], 2), a(torch.cat([x, 2 * x], 1))))

    torch.manual_seed(0)
    x = torch.randn(24, 3, 3, dtype=torch.float64)
    net = Net(forward, nn.Linear(3, 4), nn.Linear(4, 2)).double().eval()
    snn = convert(net, x, x, K=5, circuits="gated", effort="quick", repair=False)
    with fs.count(snn, synops=True) as counts:
        wanted = snn(x[:4])
    trace = simulate(snn, x[:4], "events")
    torch.testing.assert_close(trace.output, wanted, rtol=0, atol=1e-12)
    assert (trace.counts.by_site, trace.counts.synops) == (counts.by_site, counts.synops)


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_what_the_input_brings_is_not_kept_for_other_images(engine, monkeypatch) -> None:
    def forward(x: Tensor, a: nn.Module, out: nn.Module) -> Tensor:
        first, second = a(x).chunk(2, 1)  # a node of several results, which have no shape of their own
        return out(torch.relu(first) - torch.relu(second))

    torch.manual_seed(0)
    x = torch.randn(5, 3, dtype=torch.float64)
    snn = convert(Net(forward, nn.Linear(3, 8), nn.Linear(4, 2)).double().eval(), x, K=6, alpha=4.0)
    monkeypatch.setattr("fewspikes.simulation.simulation.batch_size", lambda neurons: 2)
    torch.testing.assert_close(simulate(snn, x, engine).output, snn(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_what_nobody_waits_for_fires_too(engine) -> None:
    # The state is carried to the next time step by neurons of K = 8; after the last one nobody reads them.
    torch.manual_seed(0)
    x = torch.randn(8, 2, 3, dtype=torch.float64)
    net = (
        Net(lambda x, gru, out: out(torch.relu(gru(x)[0])), nn.GRU(3, 2, batch_first=True), nn.Linear(2, 2))
        .double()
        .eval()
    )
    snn = convert(net, x, x, K=2, circuits="gated", effort="quick", repair=False)
    snn = snn.with_neurons({"layers.0.gru#4": fs.FSNeuron(fs.relu_parameters(K=8, alpha=2.0))})
    with fs.count(snn, synops=True) as counts:
        wanted = snn(x)
    trace = simulate(snn, x, engine)
    assert max(last for _, last in trace.times.values()) > trace.answer
    assert (trace.counts.by_site, trace.counts.synops or counts.synops) == (counts.by_site, counts.synops)
    torch.testing.assert_close(trace.output, wanted, rtol=0, atol=1e-12)


def test_pairs_that_several_boxes_hold_are_there_once() -> None:
    images = np.array([0, 1, 2, -1, -1, -1])  # two images of three elements
    found = pairs_of((identity((2, 3)), identity((2, 3))), images, images)
    assert (found.first.tolist(), found.target.tolist()) == ([0, 1, 2, 3], [0, 1, 2])


def test_on_a_grid_float32_has_the_same_bits() -> None:
    torch.manual_seed(0)
    net = Net(lambda x, a, b: b(torch.relu(a(x)).flatten(1)), nn.Conv2d(1, 3, 3), nn.Linear(48, 4)).eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_((weight * 64).round() / 64)
    x = torch.randint(-16, 16, (6, 1, 6, 6)).float() / 8
    snn = convert(net, x, K=8, alpha=4.0)
    for engine in ENGINES:
        trace = simulate(snn, x, engine)
        assert torch.equal(trace.output, snn(x))
        (train,) = trains(snn, x).values()
        assert torch.equal(trace.spikes["relu"], train[0])


def schedule(net: nn.Module, *shape: int, membranes: int = 1, circuits=None, **k: int) -> tuple[Schedule, Plan]:
    x = torch.randn(16, *shape, dtype=torch.float64)
    snn = convert(net.double().eval(), x, x, K=4, circuits=circuits, effort="quick", repair=False)
    steps = {
        name: k.get(name.replace(".", "_").replace("#", ""), neuron.code.K) for name, neuron in snn.neurons.items()
    }
    plan = Plan(snn.structure, snn.tensors, steps)
    return Schedule(plan, membranes), plan


def delays(made: Schedule) -> dict[str, list[int]]:
    """By site, how long its spikes wait before each of their ends."""
    return {layer.site: sorted(line.delay for line in made.lines[layer.node]) for layer in made.plan.layers}


def gate_of_three(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module, held: nn.Module) -> Tensor:
    first = torch.relu(a(x))
    second = torch.relu(b(first))
    return torch.cat([first, second, torch.relu(c(second))], 1) * held(x)


def product_beside_a_maximum(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module, held: nn.Module) -> Tensor:
    late = torch.maximum(torch.relu(b(torch.relu(a(x)))), a(x))
    late = torch.maximum(torch.relu(c(late)), late)
    return torch.relu(torch.sigmoid(b(x)) * held(x)[:, :2] + late)


def product_beside_spikes(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module, held: nn.Module) -> Tensor:
    return torch.relu(torch.relu(a(x)) * held(x)[:, :2] + torch.tanh(c(torch.sigmoid(b(x)))))


@pytest.mark.parametrize("forward", [gate_of_three, product_beside_a_maximum, product_beside_spikes])
def test_the_report_tells_the_pipelines_interval_whatever_each_k(forward) -> None:
    torch.manual_seed(0)
    net = Net(forward, *(nn.Linear(2, 2) for _ in range(3)), nn.Linear(2, 6)).double().eval()
    x = torch.randn(8, 2, dtype=torch.float64)
    snn = convert(net, x, x, K=4, circuits={"product": "gated"}, effort="quick", repair=False)
    trace = simulate(snn, x, "pipeline")
    assert torch.allclose(trace.output, snn(x), atol=1e-12)
    assert (trace.answer, trace.interval) == (snn.report.latency_steps, snn.report.interval_steps)
    segments, drawn = snn.structure.segments, torch.Generator().manual_seed(0)
    for _ in range(30):
        k = {name: int(torch.randint(1, 9, (), generator=drawn)) for name in snn.neurons}
        by_node = {site.node: k[site.name] for site in snn.structure.sites}
        made = Schedule(Plan(snn.structure, snn.tensors, k), 1)
        assert (made.latency, made.interval) == (latency_steps(segments, by_node), interval_steps(segments, by_node))


def test_the_layers_of_one_gate_end_together() -> None:
    net = Net(gate_of_three, *(nn.Linear(2, 2) for _ in range(3)), nn.Linear(2, 6))
    made, _ = schedule(net, 2, circuits={"product": "gated"})
    # They fire in steps 1 to 4, 5 to 8 and 9 to 12; what is held would wait for 12 steps, did they not all gate in the
    # last 4. The first ones' spikes wait 8 and 4 steps for it.
    assert delays(made) == {"relu#1": [0, 8], "relu#2": [0, 4], "relu#3": [0]}
    assert made.interval == 8


@pytest.mark.parametrize(
    ("forward", "synapses"),
    [
        (lambda x, a, b, c: (g := torch.relu(a(x))) + g * b(x), 2),
        (lambda x, a, b, c: (g := torch.relu(a(x))) * b(x) + g * c(x), 2),
        (lambda x, a, b, c: torch.relu(a(x)) * b(x) + torch.sigmoid(c(x)), 1),
        (lambda x, a, b, c: c(g := torch.relu(a(x))) + g * b(x), 3 + 1),
    ],
)
def test_synapses_through_a_product_are_beside_the_direct_ones(forward, synapses) -> None:
    torch.manual_seed(0)
    net, x = Net(forward, *(nn.Linear(3, 3) for _ in range(3))).double().eval(), torch.randn(8, 3, dtype=torch.float64)
    snn = convert(net, x, x, K=3, circuits={"product": "gated"}, effort="quick", repair=False)
    assert snn.structure.fan_out["relu"].dense().tolist() == [synapses] * 3
    with fs.count(snn, synops=True) as counts:
        snn(x)
    assert simulate(snn, x, "events").counts.synops == counts.synops > 0


def test_a_chain_by_hand() -> None:
    net = Net(lambda x, a, b, c: c(torch.relu(b(torch.relu(a(x))))), *(nn.Linear(3, 3) for _ in range(3)))
    made, plan = schedule(net, 3, relu1=3, relu2=5)
    assert [(layer.site, layer.start, layer.K) for layer in plan.layers] == [("relu#1", 0, 3), ("relu#2", 3, 5)]
    assert (made.latency, made.interval) == (8, 8)  # the second takes in 3 steps and fires 5
    assert delays(made) == {"relu#1": [0], "relu#2": [0]}
    assert schedule(net, 3, relu1=3, relu2=5, membranes=2)[0].interval == 5


def test_a_residual_block_by_hand() -> None:
    def forward(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module) -> Tensor:
        x = torch.relu(a(x))
        return torch.relu(c(torch.relu(b(x))) + x)

    made, _ = schedule(Net(forward, *(nn.Linear(3, 3) for _ in range(3))), 3)
    # relu#1 fires in steps 1 to 4, relu#2 in 5 to 8; what skips it waits 4 steps, so that both come in 5 to 8.
    assert delays(made) == {"relu#1": [0, 4], "relu#2": [0], "relu#3": [0]}
    assert (made.latency, made.interval) == (12, 8)
    traffic = made.traffic()
    assert (traffic.spike_buffers, traffic.value_buffers) == (3 * 4, 0)  # the input is taken as it comes
    assert traffic.images_per_1000_steps == 125


def test_what_waits_as_a_number_by_hand() -> None:
    def forward(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module, d: nn.Module) -> Tensor:
        return torch.relu(d(torch.relu(c(torch.relu(b(torch.relu(a(x))))))) + x)

    made, _ = schedule(Net(forward, *(nn.Linear(3, 3) for _ in range(4))), 3)
    # The input is needed at step 0, and again at step 12: with an image every 8 steps, two of them wait.
    assert (made.interval, made.traffic().value_buffers) == (8, 2 * 3)
    assert made.traffic(20).value_buffers == 3


def test_a_cell_of_two_branches_by_hand() -> None:
    def forward(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module, d: nn.Module, e: nn.Module) -> Tensor:
        x = torch.relu(a(x))
        short, long = torch.relu(b(x)), torch.relu(d(torch.relu(c(x))))
        return e(torch.cat([short, long], 1))

    made, _ = schedule(Net(forward, *(nn.Linear(3, 3) for _ in range(4)), nn.Linear(6, 2)), 3)
    assert delays(made) == {"relu#1": [0], "relu#2": [4], "relu#3": [0], "relu#4": [0]}
    assert (made.latency, made.interval) == (12, 8)


def test_squeeze_and_excitation_by_hand() -> None:
    def forward(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module) -> Tensor:
        x = torch.relu(a(x))
        return x * torch.sigmoid(c(torch.relu(b(x.mean((2, 3), keepdim=True)))))

    net = Net(forward, nn.Conv2d(2, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1))
    made, plan = schedule(net, 2, 2, 2, circuits={"product": "gated"})
    # relu#1 in 1 to 4, relu#2 in 5 to 8, the gate in 9 to 12, at once through what it holds: relu#1's spikes reach that
    # 4 steps late, in 5 to 8.
    assert [layer.start for layer in plan.layers] == [0, 4, 8]
    assert delays(made) == {"relu#1": [0, 4], "relu#2": [0], "sigmoid": [0]}
    assert (made.latency, made.interval) == (12, 8)
    assert schedule(net, 2, 2, 2)[0].latency == 12  # digital


def test_fifty_images_in_flight_and_none_comes_too_early() -> None:
    torch.manual_seed(0)
    net = Net(lambda x, a, b, c: c(torch.relu(b(torch.relu(a(x))))), *(nn.Linear(3, 3) for _ in range(3))).double()
    x = torch.randn(50, 3, dtype=torch.float64)
    snn = convert(net.eval(), x, x, K=4)
    trace = simulate(snn, x, Pipeline(interval=8))
    assert torch.equal(trace.output, torch.cat([simulate(snn, one[None], "pipeline").output for one in x]))
    with pytest.raises(FewSpikesError, match="an image every 8 steps at most; got interval=7: give 8 or more"):
        simulate(snn, x, Pipeline(interval=7))


def test_a_layer_that_hears_itself_while_it_fires_needs_two_membranes(tmp_path) -> None:
    torch.manual_seed(0)
    net = Net(lambda x, rnn, out: out(rnn(x)[0]), nn.RNN(3, 4, nonlinearity="relu", batch_first=True), nn.Linear(4, 2))
    x = torch.randn(8, 2, 3, dtype=torch.float64)
    snn = convert(net.double().eval(), x, x, K=4, effort="quick", repair=False)
    recording = Recording(folder=tmp_path / "spikes")
    (site,) = snn.neurons
    told = f'the layer {site} takes in a time step of its loop .*; use Pipeline.membranes=2. or engine="steps"'
    with pytest.raises(FewSpikesError, match=told):
        simulate(snn, x, "pipeline", recording)
    assert not (tmp_path / "spikes").exists()
    torch.testing.assert_close(simulate(snn, x, Pipeline(membranes=2)).output, snn(x), rtol=0, atol=1e-12)


def test_the_output_grows_step_by_step() -> None:
    # One neuron of 3 bits, alpha 8: 5 is 4, then nothing, then 1; times 0.5, plus 1.
    net = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)).eval()
    for layer, weight, bias in ((net[0], 1.0, 0.0), (net[2], 0.5, 1.0)):
        nn.init.constant_(layer.weight, weight)
        nn.init.constant_(layer.bias, bias)
    snn = convert(net, torch.zeros(1, 1), K=3, alpha=8.0, rounding="down")
    trace = simulate(snn, torch.tensor([[5.0]]))
    assert (trace.running_steps, trace.running.flatten().tolist()) == ((1, 2, 3), [3.0, 3.0, 3.5])
    assert trace.spikes["1"].flatten().tolist() == [True, False, True]
    assert (trace.times, trace.answer, trace.per_step["1"].tolist()) == ({"1": (1, 3)}, 3, [1, 0, 1])


def test_layers_fed_with_the_fast_kernels_sources_flip_hardly_any_spike_in_float32(converted) -> None:
    snn, x = converted
    narrow = snn.with_neurons({}).float()
    expected = trains(narrow, x.float())
    forced = {(name, time): z for name, own in expected.items() for time, z in enumerate(own)}
    flipped, total = 0, 0
    plan = Plan(narrow.structure, narrow.tensors, {name: neuron.code.K for name, neuron in narrow.neurons.items()})
    with torch.no_grad():
        for _, layer, t, z in fired(plan, Batch(plan, narrow, [x.float()]), forced):
            flipped, total = flipped + int((z != forced[layer.site, layer.time][t]).sum()), total + z.numel()
    assert flipped <= total * 1e-4  # few numbers here; benchmarks/simulation.py counts over many


def test_more_than_there_is_room_for_names_the_bytes(converted) -> None:
    snn, x = converted
    name = next(iter(snn.neurons))
    with pytest.raises(FewSpikesError, match=r"recording takes [\d,]+ bytes, the limit is 10"):
        simulate(snn, x, recording=Recording(limit=10))
    assert list(simulate(snn, x, recording=Recording((name,))).spikes) == [name]
    assert simulate(snn, x, recording=Recording((), 0)).spikes == {}
    with pytest.raises(FewSpikesError, match="there is no site 'nowhere' to record"):
        simulate(snn, x, recording=Recording(("nowhere",)))


def test_bad_input_is_one_line(converted) -> None:
    snn, x = converted
    with pytest.raises(FewSpikesError, match="engine must be steps, pipeline, events or a Pipeline; got 'slow'"):
        simulate(snn, x, "slow")
    with pytest.raises(FewSpikesError, match="has shape"):
        simulate(snn, x[..., :-1])
    with pytest.raises(FewSpikesError, match="at least one image; got a batch of 0"):
        simulate(snn, x[:0])
    with pytest.raises(FewSpikesError, match="the batch to simulate holds NaN or inf"):
        simulate(snn, torch.full_like(x, float("nan")))
    with pytest.raises(FewSpikesError, match="recording must be a Recording, .*; got 'relu'"):
        simulate(snn, x, "steps", "relu")
    with pytest.raises(FewSpikesError, match="membranes"):
        Pipeline(membranes=3)
    with pytest.raises(FewSpikesError, match="choose a shorter interval, or fewer images"):
        simulate(snn, x, Pipeline(interval=10**9))
    with pytest.raises(FewSpikesError, match="the batch is on meta: move it with .cpu()"):
        simulate(snn, x.to("meta"))
    with pytest.raises(FewSpikesError, match="needs a converted network"):
        simulate(nn.Linear(2, 2), x)


def test_a_pipeline_of_one_code_takes_an_image_every_2_k_steps(converted) -> None:
    snn, x = converted
    looped = bool(snn.graph.loops)
    trace = simulate(snn, x, "pipeline")
    entry = [site.K for site in snn.report.sites]
    if not looped and set(entry) == {5}:
        assert trace.interval == 10
    assert all(a <= b for a, b in pairwise(sorted(first for first, _ in trace.times.values())))


def test_more_synapses_than_memory_holds_are_refused(monkeypatch):
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5)).eval()
    snn, x = fs.convert(net, torch.zeros(1, 4)), torch.rand(1, 4)
    monkeypatch.setattr("fewspikes.simulation.events._MOST_SYNAPSES", 30)
    simulate(snn, x, "events")
    monkeypatch.setattr("fewspikes.simulation.events._MOST_SYNAPSES", 29)
    with pytest.raises(FewSpikesError, match='more than 29 up to .*; simulate with engine="steps"'):
        simulate(snn, x, "events")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last, "expanded"])
@pytest.mark.parametrize("channels", [None, 3, 700])
def test_a_step_of_a_layer_is_the_recurrence_in_any_memory_layout(layout, channels):
    C = channels or 5
    v = torch.randn(2, C, 9, 30) * 4
    v = v[:, :, :1].expand(2, C, 9, 30) if layout == "expanded" else v.contiguous(memory_format=layout)
    scale = None if channels is None else torch.rand(C) + 0.5
    neuron = fs.FSNeuron(fs.relu_parameters(K=4, alpha=8.0), scale=scale, gain=scale)
    firing, gated = Firing(neuron, v, Moment(0, 0, {})), neuron.gate(v).clone()
    T, h, d, _ = neuron.parameters_for(v)
    for t in range(4):
        z = gated >= T[t]
        gated = gated - h[t] * z
        fired = firing.fire(t)
        assert torch.equal(fired, z)
        assert torch.equal(firing.v, gated)
        value = firing.value(t, firing.heard(t, fired))
        assert torch.equal(value, neuron.ungate(d[t] * z.float()))
        assert torch.equal(value, firing.value(t, fired.clone()))  # of spikes that are not its own
    assert Firing(neuron, v - 100, Moment(0, 0, {})).value(0, torch.zeros_like(z)) is None
