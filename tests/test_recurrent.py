"""Recurrent networks: what torch computes, and what the same network unrolled by hand is as spikes."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import fewspikes as fs
from fewspikes import FewSpikesError
from fewspikes.conversion.building import calibrate_model
from fewspikes.graph.encoding import graph_from_json, graph_to_json
from fewspikes.neuron.layer import FSNeuron
from fewspikes.operators.rules import is_known

T, SIZE, HIDDEN = 4, 3, 2
quiet = pytest.mark.filterwarnings("ignore::fewspikes.FewSpikesWarning", "ignore:LSTM with projections")


class Outputs(nn.Module):
    """All outputs and the last states, with the batch in front."""

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs, states = self.rnn(x if self.rnn.batch_first else x.transpose(0, 1))
        outputs = outputs if self.rnn.batch_first else outputs.transpose(0, 1)
        return outputs, *(s.transpose(0, 1) for s in (states if isinstance(states, tuple) else (states,)))


class Continued(nn.Module):
    """States handed in and out."""

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        given = tuple(state.transpose(0, 1).contiguous() for state in states)
        outputs, found = self.rnn(x, given if len(given) > 1 else given[0])
        return outputs, *(s.transpose(0, 1) for s in (found if isinstance(found, tuple) else (found,)))


VARIANTS = {
    "lstm": lambda: nn.LSTM(SIZE, HIDDEN, batch_first=True),
    "lstm of three layers, projected": lambda: nn.LSTM(SIZE, 4, 3, batch_first=True, proj_size=2),
    "lstm of both directions, two layers": lambda: nn.LSTM(SIZE, HIDDEN, 2, batch_first=True, bidirectional=True),
    "lstm projected in both directions": lambda: nn.LSTM(SIZE, 4, 2, batch_first=True, bidirectional=True, proj_size=2),
    "lstm without biases, time in front": lambda: nn.LSTM(SIZE, HIDDEN, 2, bias=False),
    "gru": lambda: nn.GRU(SIZE, HIDDEN, 2, batch_first=True, dropout=0.5),
    "gru of both directions, time in front": lambda: nn.GRU(SIZE, HIDDEN, 2, bidirectional=True),
    "gru without biases": lambda: nn.GRU(SIZE, HIDDEN, bias=False, batch_first=True),
    "tanh": lambda: nn.RNN(SIZE, HIDDEN, 2, batch_first=True),
    "relu of both directions": lambda: nn.RNN(
        SIZE, HIDDEN, 2, batch_first=True, nonlinearity="relu", bidirectional=True
    ),
    "relu without biases": lambda: nn.RNN(SIZE, HIDDEN, nonlinearity="relu", bias=False),
}
NEAR = {torch.float32: 1e-5, torch.float64: 1e-12}


def flat(outputs: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def assert_near(got: Tensor | tuple[Tensor, ...], wanted: Tensor | tuple[Tensor, ...], most: float) -> None:
    for a, b in zip(flat(got), flat(wanted), strict=True):
        assert a.shape == b.shape
        assert float((a - b).abs().max()) <= most * max(1.0, float(b.abs().max()))


def converted(model: nn.Module, *x: Tensor, **settings: object) -> fs.SpikingNetwork:
    return fs.convert(model, tuple(v[:1] for v in x), [x] if len(x) > 1 else x[0], effort="quick", **settings)


@quiet
@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("name", VARIANTS)
def test_the_ann_form_is_the_network_at_any_batch_size_and_length(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    model = Outputs(VARIANTS[name]()).to(dtype).eval()
    snn = fs.convert(model, torch.randn(1, T, SIZE, dtype=dtype), K=4)
    ann = snn.as_ann()
    with torch.no_grad():
        for images, length in ((1, T), (3, T), (2, 1), (2, 9)):
            x = torch.randn(images, length, SIZE, dtype=dtype)
            assert_near(ann(x), model(x), NEAR[dtype])


@quiet
@pytest.mark.parametrize(
    "make",
    [lambda: nn.LSTM(SIZE, 4, 2, batch_first=True, proj_size=2), lambda: nn.GRU(SIZE, HIDDEN, 2, batch_first=True)],
)
def test_states_are_handed_in_and_out(make) -> None:
    torch.manual_seed(1)
    model = Continued(make()).double().eval()
    sizes = [2, 4] if isinstance(model.rnn, nn.LSTM) else [HIDDEN]

    def given(images: int) -> tuple[Tensor, ...]:
        return torch.randn(images, T, SIZE).double(), *(torch.randn(images, 2, n).double() for n in sizes)

    snn = converted(model, *given(8), K=8)
    x, *states = given(3)
    with torch.no_grad():
        assert_near(snn.as_ann()(x, *states), model(x, *states), 1e-12)
        whole = snn(x, *states)
        first = snn(x[:, :1], *states)
        rest = snn(x[:, 1:], *first[1:])
    assert torch.equal(torch.cat([first[0], rest[0]], 1), whole[0])
    assert all(torch.equal(a, b) for a, b in zip(rest[1:], whole[1:], strict=True))


class Cells(nn.Module):
    """One time step of each kind of cell."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.first, self.second = nn.LSTMCell(SIZE, 4, bias), nn.GRUCell(4, 4, bias)
        self.third, self.fourth = nn.RNNCell(4, 4, bias), nn.RNNCell(4, 4, bias, "relu")

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        y, c = self.first(x, (h, h * 2))
        z = self.second(y, h)
        return self.fourth(self.third(z, c), h), self.first(x)[1]


@quiet
@pytest.mark.parametrize("bias", [True, False])
def test_cells_convert_with_no_loop(bias: bool) -> None:
    torch.manual_seed(1)
    model = Cells(bias).double().eval()
    x, h = torch.randn(5, SIZE).double(), torch.randn(5, 4).double()
    snn = converted(model, x, h, K=4)
    with torch.no_grad():
        assert_near(snn.as_ann()(x, h), model(x, h), 1e-12)
    assert not snn.graph.loops
    assert {circuit.operator for circuit in snn.report.circuits} == {
        "lstm_cell",
        "gru_cell",
        "rnn_tanh_cell",
        "rnn_relu_cell",
    }


class Rolled(nn.Module):
    """Layers over time, with maps and neurons before and behind."""

    def __init__(self, kind: str, layers: int, directions: int, ending: str) -> None:
        super().__init__()
        made = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN}[kind]
        self.kind, self.directions, self.ending = kind, directions, ending
        self.before = nn.Conv1d(SIZE, SIZE, 3, padding=1)
        self.rnn = made(SIZE, HIDDEN, layers, batch_first=True, bidirectional=directions > 1)
        self.conv, self.head = nn.Conv1d(HIDDEN * directions, 3, 2), nn.Linear(HIDDEN * directions, 3)

    def entered(self, x: Tensor) -> Tensor:
        return F.relu(self.before(x.transpose(1, 2))).transpose(1, 2)

    def left(self, outputs: Tensor, last: Tensor) -> tuple[Tensor, ...]:
        endings = {
            "last": lambda: (self.head(outputs[:, -1]),),
            "all": lambda: (F.relu(self.head(outputs)),),
            "conv": lambda: (F.relu(self.conv(outputs.transpose(1, 2))).mean(2),),
            "mean and last": lambda: (self.head(outputs.mean(1)), last * 2),
            "neurons and last": lambda: (F.relu(outputs - 0.05), self.head(last)),
        }
        return endings[self.ending]()

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        given = tuple(state.transpose(0, 1).contiguous() for state in states)
        outputs, found = self.rnn(self.entered(x), given if self.kind == "lstm" else given[0])
        return self.left(outputs, (found[0] if self.kind == "lstm" else found)[-1])


class Unrolled(nn.Module):
    """The same without a loop: time step by time step."""

    def __init__(self, rolled: Rolled) -> None:
        super().__init__()
        self.rolled, self.cells = rolled, nn.ModuleList()
        cell = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "tanh": nn.RNNCell}[rolled.kind]
        for weights in rolled.rnn.all_weights:
            made = cell(weights[0].shape[1], HIDDEN)
            for own, given in zip(made.parameters(), weights, strict=True):
                own.data = given.data.clone()
            self.cells.append(made)

    def over(self, cells, sequence, states):
        outputs = []
        for x in sequence:
            for i, cell in enumerate(cells):
                states[i] = cell(x, states[i])
                x = states[i][0] if self.rolled.kind == "lstm" else states[i]
            outputs.append(x)
        return outputs

    def forward(self, x: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        sequence = list(self.rolled.entered(x).unbind(1))
        states = list(zip(*(state.unbind(1) for state in given), strict=True))
        states = states if self.rolled.kind == "lstm" else [own[0] for own in states]
        if self.rolled.directions == 1:
            sequence = self.over(self.cells, sequence, states)
            return self.rolled.left(torch.stack(sequence, 1), sequence[-1])
        for i in range(0, len(states), 2):
            there = self.over(self.cells[i : i + 1], sequence, states[i : i + 1])
            back = self.over(self.cells[i + 1 : i + 2], sequence[::-1], states[i + 1 : i + 2])
            sequence = [torch.cat(pair, 1) for pair in zip(there, back[::-1], strict=True)]
        return self.rolled.left(torch.stack(sequence, 1), back[-1])


UNROLLED = {
    "tanh, last": ("tanh", 1, 1, "last", {}),
    "tanh, all": ("tanh", 1, 1, "all", {}),
    "tanh, conv": ("tanh", 1, 1, "conv", {}),
    "tanh, both directions": ("tanh", 1, 2, "conv", {}),
    "tanh, two layers": ("tanh", 2, 1, "mean and last", {}),
    "tanh, two layers, both directions": ("tanh", 2, 2, "conv", {}),
    "lstm": ("lstm", 2, 1, "mean and last", {}),
    "lstm, both directions": ("lstm", 2, 2, "conv", {}),
    "lstm, gated": ("lstm", 2, 1, "neurons and last", {"product": "gated"}),
    "gru": ("gru", 2, 1, "all", {}),
    "gru, both directions": ("gru", 1, 2, "conv", {}),
}


def pair(name: str) -> tuple[fs.SpikingNetwork, fs.SpikingNetwork, tuple[Tensor, ...]]:
    """A network with loops, and the same unrolled with the same codes, of 3 to 5 steps."""
    torch.manual_seed(2)
    kind, layers, directions, ending, circuits = UNROLLED[name]
    rolled = Rolled(kind, layers, directions, ending).eval()
    states = [torch.randn(6, layers * directions, HIDDEN) for _ in range(2 if kind == "lstm" else 1)]
    x = (torch.randn(6, T, SIZE), *states)
    looped = converted(rolled, *x, K=4, repair=False, circuits=circuits)
    k = {site.name: 3 + i % 3 for i, site in enumerate(looped.sites)}
    looped = converted(rolled, *x, K=k, repair=False, circuits=circuits)
    unrolled = converted(Unrolled(rolled).eval(), *x, K=4, repair=False, circuits=circuits)
    one = [site.name for site in looped.sites if site.activation.name == "identity"]
    looped = looped.with_neurons({name: looped.neurons[one[0]].replace() for name in one})
    return looped, with_codes(unrolled, looped), x


def codes(looped: fs.SpikingNetwork) -> list[FSNeuron]:
    """The neurons of the sites in the order in which they run, without those for f(x) = x."""
    found, done = [], set()
    sites = [site for site in looped.sites if site.activation.name != "identity"]
    for site in sites:
        loop = looped.structure.loop(site.name)
        together = [s.name for s in sites if looped.structure.loop(s.name) is loop] if loop else [site.name]
        if site.name not in done:
            found += [looped.neurons[n].replace() for _ in range(loop.time_steps if loop else 1) for n in together]
            done.update(together)
    return found


def with_codes(unrolled: fs.SpikingNetwork, looped: fs.SpikingNetwork) -> fs.SpikingNetwork:
    """The network unrolled with the codes of that with loops."""
    carrying = [site.name for site in unrolled.sites if site.activation.name == "identity"]
    others = [site.name for site in unrolled.sites if site.name not in carrying]
    own = next((looped.neurons[s.name] for s in looped.sites if s.activation.name == "identity"), None)
    assert own is not None or not carrying
    neurons = dict(zip(others, codes(looped), strict=True)) | {name: own.replace() for name in carrying}
    return unrolled.with_neurons(neurons)


@quiet
@pytest.mark.parametrize("name", UNROLLED)
def test_a_loop_is_the_network_unrolled_in_values_spikes_synapses_and_multiplications(name: str) -> None:
    looped, unrolled, x = pair(name)
    with torch.no_grad():
        with fs.count(looped, synops=True) as counts:
            got = looped(*x)
        with fs.count(unrolled, synops=True) as wanted:
            output = unrolled(*x)
    assert_near(got, output, 1e-6)
    assert counts.total == wanted.total > 0
    assert not counts.unknown_synops
    assert counts.synops == wanted.synops
    assert looped.macs.ann == unrolled.macs.ann
    assert looped.macs.analog == unrolled.macs.analog


@quiet
@pytest.mark.parametrize("name", UNROLLED)
def test_a_loop_takes_the_steps_of_the_network_unrolled(name: str) -> None:
    looped, unrolled, _ = pair(name)
    took, wanted = looped.report.latency_steps, unrolled.report.latency_steps
    if len(looped.graph.loops) > 2:  # layers wait for those before
        assert took >= wanted
    else:
        assert took == wanted


class Tagger(nn.Module):
    """A recurrent network with a head: an output for each sequence."""

    def __init__(self, rnn: nn.RNNBase, classes: int = 10) -> None:
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(rnn.hidden_size * (2 if rnn.bidirectional else 1), classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def rows() -> tuple[Tensor, Tensor]:
    """Handwritten digits (scikit-learn's), shuffled, read row by row: 8 time steps of 8 pixels."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    return torch.from_numpy(digits.images).float()[order] / 16, torch.from_numpy(digits.target)[order]


@pytest.fixture(scope="module", params=["lstm", "gru", "tanh", "both directions"])
def trained(request) -> tuple[nn.Module, Tensor, Tensor]:
    """A network trained on two thirds of the digits, and the whole of them."""
    torch.manual_seed(0)
    made = {
        "lstm": lambda: nn.LSTM(8, 24, batch_first=True),
        "gru": lambda: nn.GRU(8, 24, batch_first=True),
        "tanh": lambda: nn.RNN(8, 32, batch_first=True),
        "both directions": lambda: nn.LSTM(8, 12, 2, batch_first=True, bidirectional=True),
    }
    model, (x, y) = Tagger(made[request.param]()), rows()
    adam = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        chosen = torch.randint(0, 1200, (128,))
        loss = F.cross_entropy(model(x[chosen]), y[chosen])
        adam.zero_grad()
        loss.backward()
        adam.step()
    return model.eval(), x, y


@quiet
@pytest.mark.parametrize("circuits", ["digital", "gated"])
def test_trained_networks_keep_their_accuracy(trained, circuits: str) -> None:
    model, x, y = trained
    snn = fs.convert(model, x[:1], x[:256], K=12, circuits={"product": circuits}, effort="quick")
    found = fs.evaluate(snn, [(x[1200:], y[1200:])], reference=model)
    assert found.ann_top1 > 90
    assert abs(found.drop) <= 0.5
    assert found.cosine >= 0.99
    assert 0 < found.spikes_per_neuron <= 8 * 12


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, fs.SpikingNetwork, Tensor]:
    """An LSTM with random weights, of few steps."""
    torch.manual_seed(0)
    model, x = Tagger(nn.LSTM(8, 12, 2, batch_first=True)).eval(), rows()[0]
    return model, fs.convert(model, x[:1], x[:128], K=6, effort="quick", repair=False), x


@quiet
def test_files_copies_and_pickles_compute_the_same(digits, tmp_path) -> None:
    _, snn, x = digits
    fs.save(snn, tmp_path / "network.fs")
    loaded = fs.load(tmp_path / "network.fs")
    for other in (loaded, copy.deepcopy(snn), pickle.loads(pickle.dumps(snn))):
        assert torch.equal(other(x[:5]), snn(x[:5]))
        assert torch.equal(other(x[:3, :5]), snn(x[:3, :5]))
    assert loaded.report == snn.report
    fs.save(loaded, tmp_path / "again.fs")
    assert (tmp_path / "again.fs").read_bytes() == (tmp_path / "network.fs").read_bytes()


@quiet
def test_neurons_are_counted_once_and_their_spikes_at_each_time_step(digits) -> None:
    _, snn, x = digits
    seen = dict.fromkeys(snn.neurons, 0)

    def look(name: str, spikes: Tensor) -> None:
        seen[name] += int(spikes.sum())

    handles = {name: (lambda _, spikes, name=name: look(name, spikes)) for name in snn.neurons}
    for name, neuron in snn.neurons.items():
        neuron.spike_hooks.append(handles[name])
    with fs.count(snn) as counts:
        snn(x[:7])
    for name, neuron in snn.neurons.items():
        neuron.spike_hooks.remove(handles[name])
    assert snn.report.neurons == 2 * 5 * 12
    assert counts.by_site == seen
    assert counts.inputs_by_site == dict.fromkeys(snn.neurons, 7 * 12 * 8)
    assert counts.per_neuron == pytest.approx(8 * counts.per_neuron_and_time_step)
    (loop,) = snn.report.loops
    assert (loop.time_steps, loop.steps, loop.neurons) == (8, 12, 120)
    assert snn.report.latency_steps == 8 * 12 + 12


@quiet
def test_a_histogram_is_over_all_time_steps(digits) -> None:
    model, snn, x = digits
    found = calibrate_model(model, x[:1], x[:50])
    assert {name: int(histogram.counts.sum()) for name, histogram in found.sites.items()} == dict.fromkeys(
        snn.neurons, 50 * 12 * 8
    )


@quiet
def test_repair_and_diagnosis_measure_through_the_loop(digits) -> None:
    model, snn, x = digits
    mended = fs.convert(model, x[:1], x[:256], K=6, effort="quick", repair=True)
    held = [x[1000:]]
    before, after = (fs.evaluate(network, held, reference=model).relative_error for network in (snn, mended))
    assert after < before
    with torch.no_grad():
        wanted, got = model(x[:128]), snn(x[:128])
    predicted = sum(site.diagnosis.output_error for site in snn.report.sites)
    measured = float((got - wanted).square().mean() / wanted.var(0, unbiased=False).mean())
    assert predicted == pytest.approx(measured, rel=0.7)
    assert all(site.diagnosis.channels == 12 for site in snn.report.sites)


@quiet
def test_a_site_s_own_error_is_that_of_all_its_time_steps(digits) -> None:
    _, snn, x = digits
    site, seen = snn.sites[2], []
    ann = snn.as_ann()
    ann.layers[2].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        ann(x[:128])
    inputs = torch.cat(seen)
    wanted, got = site.activation(inputs), snn.neurons[site.name](inputs)
    expected = (got - wanted).square().mean() / wanted.var(unbiased=False)
    assert snn.report.sites[2].diagnosis.own_error == pytest.approx(float(expected), rel=1e-4)


@quiet
def test_a_diagnosis_tells_the_spikes_of_all_time_steps(digits) -> None:
    _, snn, x = digits
    with fs.count(snn) as counts:
        snn(x[:128])
    for site in snn.report.sites:
        assert site.diagnosis.spikes_per_neuron == pytest.approx(counts.by_site[site.name] / (128 * site.neurons))
    assert snn.report.loops[0].spikes_per_neuron == pytest.approx(counts.per_neuron_and_time_step)


@quiet
def test_distilling_learns_through_the_loop(digits) -> None:
    _, snn, x = digits
    made = fs.distil(snn, x[:512], steps=60, progress=False)
    error = [fs.evaluate(network, [x[1000:]]).relative_error for network in (snn, made)]
    assert error[1] < 0.8 * error[0]


@quiet
def test_a_budget_counts_the_steps_of_all_time_steps(digits) -> None:
    model, _, x = digits
    made = fs.convert(model, x[:1], x[:256], K=fs.Budget(steps=90), effort="quick")
    assert made.report.latency_steps <= 90
    assert made.report.latency_steps > 60


@quiet
def test_longer_sequences_than_seen_run_and_their_clipped_inputs_are_counted(digits) -> None:
    _, snn, x = digits
    longer = torch.cat([x[:9], 3 * x[:9], x[:9]], 1)
    with fs.count(snn, synops=True) as counts:
        snn(longer)
    assert counts.inputs_by_site == dict.fromkeys(snn.neurons, 9 * 12 * 24)
    assert counts.clipped_fraction > 0
    assert counts.synops > 0


@quiet
def test_compiled_networks_compute_the_same(digits) -> None:
    _, snn, x = digits
    compiled = torch.compile(snn, backend="eager")
    assert torch.equal(compiled(x[:3]), snn(x[:3]))


@quiet
def test_networks_change_their_dtype(digits) -> None:
    model, snn, x = digits
    wide = copy.deepcopy(snn).double()
    with torch.no_grad():
        assert_near(wide.as_ann()(x[:3].double()), copy.deepcopy(model).double()(x[:3].double()), 1e-6)
    assert wide(x[:3].double()).dtype == torch.float64


@quiet
def test_lengths_are_free_where_rounding_errors_grow() -> None:
    torch.manual_seed(0)
    model = Tagger(nn.LSTM(SIZE, 16, 2, batch_first=True)).eval()
    with torch.no_grad():
        for weight in model.rnn.parameters():
            weight *= 40
    x = torch.randn(2, 120, SIZE)
    snn = fs.convert(model, x[:1], K=4)
    with torch.no_grad():
        noise = float((model(x) - copy.deepcopy(model).double()(x.double())).abs().max())
    assert noise > 1e-3
    assert snn(x[:, :50]).shape == (2, 10)


class Frozen(nn.Module):
    """Something else than the loop takes all time steps."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(SIZE, HIDDEN, batch_first=True), nn.Linear(T * HIDDEN, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0].flatten(1))


@quiet
def test_a_length_that_something_else_depends_on_is_fixed() -> None:
    snn = fs.convert(Frozen().eval(), torch.randn(1, T, SIZE))
    with pytest.raises(
        FewSpikesError,
        match=rf"x has shape \[batch, 5, 3\], the network was converted for \[batch, {T}, 3\]; pad or cut the seq",
    ):
        snn(torch.randn(1, 5, SIZE))


@quiet
def test_bad_sequences_are_refused_with_one_line(digits) -> None:
    model, snn, x = digits
    with pytest.raises(FewSpikesError, match="x is a sequence of length 0; give one time step at least"):
        snn(x[:2, :0])
    with pytest.raises(
        FewSpikesError, match=r"x has shape \[batch, 8, 7\], the network was converted for \[batch, any length, 8\]"
    ):
        snn(x[:2, :, :7])
    with pytest.raises(FewSpikesError, match="several lengths"):
        fs.evaluate(snn, [x[:2], x[:2, :5]])
    with pytest.raises(FewSpikesError, match="axis 0 of every input must be the batch"):
        fs.convert(nn.LSTM(SIZE, HIDDEN).eval(), torch.randn(T, SIZE))
    with pytest.raises(FewSpikesError, match="to_integer takes no loops over time"):
        fs.to_integer(snn)
    with pytest.raises(FewSpikesError, match="give an axis of length 0 one position"):
        fs.convert(model, x[:1, :0])


class Packed(nn.Module):
    """Sequences of several lengths, packed."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(SIZE, HIDDEN, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]


def test_packed_sequences_are_refused_with_the_remedy() -> None:
    with pytest.raises(FewSpikesError, match=r"packed.*give sequences of one length.*it stopped at rnn"):
        fs.convert(Packed().eval(), (torch.randn(2, T, SIZE), torch.tensor([T, 2])))


@quiet
def test_fan_out_of_a_time_step_worked_by_hand() -> None:
    # h = tanh(w x + U h) with 2 neurons over 3 time steps, and 5 outputs from the last h: a spike reaches both neurons
    # through U at the first two time steps, and the 5 outputs at the last. From all h it reaches both, and the 5 of its
    # own time step.
    snn = fs.convert(Tagger(nn.RNN(1, 2, batch_first=True), 5).eval(), torch.randn(1, 3, 1), K=4)
    (fan_out,) = snn.fan_out.values()
    assert fan_out.dense().tolist() == [[2, 2, 5], [2, 2, 5]]
    every = nn.Sequential(Outputs(nn.RNN(1, 2, batch_first=True)), First(), nn.Linear(2, 5)).eval()
    (fan_out,) = fs.convert(every, torch.randn(1, 3, 1), K=4).fan_out.values()
    assert fan_out.dense().tolist() == [[7, 7, 5], [7, 7, 5]]
    assert (snn.report.latency_steps, snn.report.interval_steps, snn.report.loops[0].steps) == (12, 12, 4)
    # 3 x (2 of w + 4 of U) without the first U, whose state is 0, and 10 of the head; analog is w x.
    assert (snn.macs.ann, snn.macs.analog) == (6 + 8 + 10, 6)


class First(nn.Module):
    """The first of several outputs."""

    def forward(self, values: tuple[Tensor, ...]) -> Tensor:
        return values[0]


def without(operator: str):
    """Leaves the nodes of an operator out."""
    return lambda nodes: [node for node in nodes if node["operator"] != operator]


def twice(operator: str):
    """Says the nodes of an operator again before the output."""
    return lambda nodes: [
        *nodes[:-1],
        *(node | {"name": "again"} for node in nodes if node["operator"] == operator),
        nodes[-1],
    ]


def with_loop(operator: str, loop: str):
    """Puts the nodes of an operator into another loop."""
    return lambda nodes: [node | {"loop": loop} if node["operator"] == operator else node for node in nodes]


def with_argument(operator: str, **arguments):
    """Changes arguments of the nodes of an operator."""
    return lambda nodes: [
        node | {"arguments": node["arguments"] | arguments} if node["operator"] == operator else node for node in nodes
    ]


@quiet
@pytest.mark.parametrize(
    ("forge", "words"),
    [
        (without("next_state"), "does not say of each of its states"),
        (twice("next_state"), "not in one piece"),
        (with_loop("history", "rnn_tanh_0"), "stands in a loop"),
        (with_loop("state", ""), "not in one piece"),
        (with_loop("time_step", "other"), "no sequence|reads inside"),
        (with_loop("site", "other"), "no sequence"),
        (with_argument("history", self={"node": "x"}), "out of a loop that is in none"),
        (with_argument("history", dim="1"), "no int"),
        (with_argument("time_step", reversed=1), "no bool"),
        (with_loop("site", "../x"), "no name for a loop"),
        (with_argument("next_state", state={"node": "site_0"}), "does not say of each of its states"),
    ],
)
def test_forged_loops_are_refused(forge, words: str) -> None:
    snn = fs.convert(Tagger(nn.RNN(1, 2, batch_first=True), 5).eval(), torch.randn(1, 3, 1), K=4)
    plain = graph_to_json(snn.graph)
    assert graph_to_json(graph_from_json(plain, is_known)) == plain
    with pytest.raises(FewSpikesError, match=words):
        graph_from_json(forge(plain), is_known)
