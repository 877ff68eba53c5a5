"""Products of two signals as spikes: gated, and by quarter squares; values, spikes, steps and synapses by hand."""

import itertools
from collections.abc import Collection

import pytest
import torch
from torch import Tensor, nn

import fewspikes as fs
from captured import Net
from fewspikes.base.errors import FewSpikesError
from fewspikes.conversion.building import calibrate_model
from fewspikes.graph.capture import captured_model
from fewspikes.graph.functions import function, in_order
from fewspikes.graph.graph import CONSTANT, INPUT, OUTPUT, SITE, replaced
from fewspikes.network.macs import multiply_adds
from fewspikes.network.segments import Segments
from fewspikes.network.synapses import fan_outs
from fewspikes.network.timing import interval_steps, latency_steps
from fewspikes.neuron.known_codes import relu_parameters
from fewspikes.neuron.layer import FSNeuron
from fewspikes.operators.call import fixed_of
from fewspikes.operators.measured import Measured
from fewspikes.operators.rewriting import Prepared, prepared

torch.manual_seed(0)


def rewritten(net: nn.Module, *shape: int, circuits: dict[str, str]) -> Prepared:
    return prepared(captured_model(net.double().eval(), torch.ones(2, *shape, dtype=torch.float64)), circuits)


def segments(made: Prepared) -> Segments:
    return Segments(made.graph, fixed_of(made.tensors))


def steps(made: Prepared, *k: int) -> dict[str, int]:
    return {site.node: own for site, own in zip(made.sites, itertools.cycle(k), strict=False)}


PRODUCTS = ("gated", "gated_rows", "gated_columns")
GATED, QUARTERS = {"product": "gated"}, {"product": "neurons"}


class Skip(nn.Module):
    """A squeeze beside a skip: relu(f(x)) * relu(h(relu(g(relu(f(x)))))."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g, self.h = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.f(x))
        return x * torch.relu(self.h(torch.relu(self.g(x))))


def test_of_two_layers_of_one_size_the_later_gates_and_waits_for_nothing() -> None:
    made = rewritten(Skip(), 3, circuits=GATED)
    assert len(made.sites) == 3
    (gated,) = (node for node in made.graph if node.short == "fewspikes::gated")
    assert gated.arguments["gate"].name == made.sites[2].node
    digital = rewritten(Skip(), 3, circuits={})
    for net in (made, digital):
        assert latency_steps(segments(net), steps(net, 5, 6, 7)) == 5 + 6 + 7
    assert interval_steps(segments(made), steps(made, 5, 6, 7)) == 13  # g collects 6 steps after f's, h 7 after g's


def test_a_gated_product_beside_a_skip_is_ready_when_its_gate_has_fired() -> None:
    # The smaller factor gates: 1 neuron, f. It has fired after K_f = 5, but what it meets is complete after 5 + 6 + 7
    # only; the gate's spikes wait, and pass in 5 steps more.
    def forward(x: Tensor, f: nn.Module, g: nn.Module, h: nn.Module) -> Tensor:
        x = torch.relu(f(x))
        return x * torch.relu(h(torch.relu(g(x))))

    made = rewritten(Net(forward, nn.Linear(3, 1), nn.Linear(1, 2), nn.Linear(2, 4)), 3, circuits=GATED)
    assert len(made.sites) == 3
    assert latency_steps(segments(made), steps(made, 5, 6, 7)) == 5 + 6 + 7 + 5
    assert interval_steps(segments(made), steps(made, 5, 6, 7)) == 13  # g collects 6 steps after f's, h 7 after g's


STATES = {  # by cell, K of each layer of it to one time step: those that fire one after the other
    "lstm": 4,  # the gates; i g; tanh(c); h, which goes on to weights
    "gru": 4,  # r; n; z (h - n); h
    "written": 3,  # the gates; n; h, of what n gated in the meantime
}


class Written(nn.Module):
    """A gated recurrent unit as papers write it, with two products: h' = (1 - z) n + z h."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.new, self.own = nn.Linear(7, 8), nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            r, z = torch.sigmoid(self.gates(torch.cat([x[:, t], h], 1))).chunk(2, 1)
            n = torch.tanh(self.new(x[:, t]) + r * self.own(h))
            h = (1 - z) * n + z * h
        return h


@pytest.mark.parametrize("name", STATES)
def test_the_steps_of_a_recurrent_cell_of_gated_products(name: str) -> None:
    net = Written() if name == "written" else Net(lambda x, f: f(x)[0][:, -1], RECURRENT[name]())
    few, more = (
        latency_steps(segments(made), {site.node: 5 for site in made.sites})
        for made in (rewritten(net, time, 3, circuits=GATED) for time in (4, 6))
    )
    assert more - few == 2 * STATES[name] * 5


def test_a_late_gate_needs_no_more_steps() -> None:
    # A gate for each channel of a map: 4 neurons against 4 x 9 on the held side.
    def forward(x: Tensor, f: nn.Module, g: nn.Module) -> Tensor:
        x = torch.relu(f(x))
        return x * torch.sigmoid(g(x.mean((2, 3), keepdim=True)))

    made = rewritten(Net(forward, nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1)), 2, 3, 3, circuits=GATED)
    (gated,) = (node for node in made.graph if node.short == "fewspikes::gated")
    assert gated.arguments["gate"].name == made.sites[1].node
    assert latency_steps(segments(made), steps(made, 5, 6)) == 5 + 6
    # The map's spikes: 4 squeezed sums and the held value; a gate's: 9 places.
    found = fan_outs(segments(made))
    assert found[made.sites[0].node].dense().unique().tolist() == [5]
    assert found[made.sites[1].node].dense().unique().tolist() == [9]


def test_gating_by_hand() -> None:
    # Neurons of 3 bits, alpha 8: 5 = 4 + 1 and 3 = 2 + 1. 5 gates -1.5: -6 and -1.5.
    net = Net(lambda x, f: torch.relu(x[:, :2]) * f(torch.relu(x[:, 2:])), nn.Linear(2, 2, bias=False)).eval()
    with torch.no_grad():
        net.layers[0].weight.copy_(torch.tensor([[-0.5, 0.0], [0.0, 2.0]]))
    snn = fs.convert(net, torch.zeros(1, 4), K=3, alpha=8.0, circuits=GATED)
    with fs.count(snn, synops=True) as counts:
        assert snn(torch.tensor([[5.0, 3.0, 3.0, 1.0]])).tolist() == [[-7.5, 6.0]]
    assert counts.by_site == {"relu#1": 4, "relu#2": 3}  # 5, 3 and 3, 1 in binary
    assert counts.synops == 4 * 1 + 3 * 2  # each gate its own place; the held factors are sums over two
    assert snn.macs.analog == 0  # d is 4, 2 and 1: shifts
    uneven = snn.with_neurons({"relu#1": FSNeuron(relu_parameters(3, 7.0))})
    assert uneven.macs.analog == 2 * 3  # 3.5, 1.75 and 0.875, each with both held values
    assert snn.report.left_digital == ()


def test_gates_of_powers_of_two_shift_what_is_held() -> None:
    net = Net(lambda x, f, g: torch.relu(f(x)) * torch.relu(g(x)), nn.Linear(3, 4), nn.Linear(3, 4)).eval()
    x = torch.randn(512, 3, generator=torch.Generator().manual_seed(0))
    gated, shifted = (fs.convert(net, x, x, K=6, circuits={"product": word}) for word in ("gated", "shifted"))
    assert [site.activation for site in gated.report.sites] == ["relu", "relu"]
    assert [site.activation for site in shifted.report.sites] == ["relu", "relu", "powers_of_two"]
    assert shifted.macs.analog == 2 * 3 * 4  # the inputs' alone
    assert gated.macs.analog == 2 * 3 * 4 + 4 * 6  # 4 values held meet 6 numbers
    shifting = shifted.neurons[shifted.sites[2].name]
    assert shifting.by_channel.keys() <= {"shift"}
    numbers = torch.tensor([*shifting.code.d.tolist(), shifting.code.offset or 1.0]).frexp().mantissa.abs()
    assert numbers.unique().tolist() == [0.5]
    # The first factor's neurons of powers of two have fired when the second's have.
    assert gated.report.latency_steps == shifted.report.latency_steps == 6 + 6
    wanted = net(x).detach()
    errors = [float((made(x) - wanted).norm() / wanted.norm()) for made in (gated, shifted)]
    assert errors[1] < 2 * errors[0] < 0.1


@pytest.mark.parametrize("size", [(3, 5), (5, 3)])
def test_matrices_are_gated_by_their_rows_or_columns(size: tuple[int, int]) -> None:
    rows, columns = size

    def forward(x: Tensor, f: nn.Module, g: nn.Module) -> Tensor:
        return torch.relu(f(x)[..., :rows].mT) @ torch.relu(g(x)[..., :columns])

    net = Net(forward, nn.Linear(6, 6), nn.Linear(6, 6))
    made = rewritten(net, 4, 6, circuits=GATED)
    operator = "fewspikes::gated_rows" if rows < columns else "fewspikes::gated_columns"  # fewer neurons gate
    assert [node.short for node in made.graph if node.short.startswith("fewspikes")] == [operator]
    found = [fan_outs(segments(made))[site.node].dense().unique().tolist() for site in made.sites]
    assert found == ([[columns], [1]] if rows < columns else [[1], [rows]])
    macs = multiply_adds(segments(made))
    assert macs.ann == 4 * 6 * 6 * 2 + rows * 4 * columns
    ((elements, gates),) = macs.held_by_node.values()
    assert elements == 4 * max(rows, columns)
    assert gates == (made.sites[0 if rows < columns else 1].node,)


ATTENTION = {
    "attention": lambda x, q, k, v, o: o(torch.softmax(q(x) @ k(x).mT, -1) @ v(x)),
    "norm": lambda x, q, k, v, o: o(nn.functional.layer_norm(q(x), (6,)) * torch.sigmoid(k(x)) + v(x)),
    "einsum": lambda x, q, k, v, o: o(torch.einsum("bic,bjc,bjd->bid", q(x), torch.tanh(k(x)), v(x))),
    "square of a map": lambda x, q, k, v, o: o(q(x).square().sum(1, keepdim=True) * k(x)),
    "time in front": lambda x, q, k, v, o: (
        o((torch.tanh(q(x)) * k(x)).transpose(0, 1).flatten(0, 1))
        .unflatten(0, (x.shape[1], x.shape[0]))
        .transpose(0, 1)
    ),
}


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("choice", ["gated", "shifted", "neurons"])
def test_everything_spikes_and_computes_what_the_model_computes(name: str, choice: str, tmp_path) -> None:
    torch.manual_seed(0)
    net = Net(ATTENTION[name], *(nn.Linear(6, 6) for _ in range(4))).eval()
    x, others = torch.randn(256, 5, 6), torch.randn(32, 5, 6)
    snn = fs.convert(net, x[:2], x, K=12, circuits=choice, effort="quick", repair=False, progress=False)
    assert snn.report.left_digital == ()
    with torch.no_grad():
        wanted = net(others)
        torch.testing.assert_close(snn.as_ann()(others), wanted, rtol=1e-4, atol=1e-5)
        error = float((snn(others) - wanted).square().mean() / wanted.var())
    assert error < (0.01 if choice == "gated" else 0.03)
    fs.save(snn, tmp_path / "net.fs")
    assert torch.equal(fs.load(tmp_path / "net.fs")(others), snn(others))


Values = dict[str, Tensor]


def values(
    made: Prepared, x: Tensor, frozen: Values, changed: str = "", position: int = 0, digital: Collection[str] = ()
) -> Values:
    """Every tensor by node; what sites send, and products hold, is as in `frozen`, but for one element of a site."""
    found: Values = {}
    for node in made.graph:
        given = replaced(node.arguments, lambda ref: found[ref.name])
        if node.operator == INPUT:
            found[node.name] = x
        elif node.operator == CONSTANT:
            found[node.name] = made.tensors[node.arguments["tensor"]]
        elif node.operator == SITE:
            site = next(site for site in made.sites if site.node == node.name)
            sent = frozen.get(node.name, site.activation(given["input"])).clone(memory_format=torch.contiguous_format)
            if node.name == changed:
                sent.view(-1)[position] += 1.0
            found[node.name] = sent
        elif node.operator == OUTPUT:
            found[OUTPUT] = given["value"]
        else:
            if frozen and (node.short == "amax" or node.name in digital):  # digital: its result is another source
                found[node.name] = frozen[node.name]
                continue
            if "held" in given and frozen:
                given["held"] = frozen[node.arguments["held"].name]
            args, kwargs = in_order(node.operator, given)
            found[node.name] = function(node.operator)(*args, **kwargs)
    return found


@pytest.mark.parametrize("name", ATTENTION)
def test_a_spike_reaches_the_sums_that_change_with_it(name: str) -> None:
    torch.manual_seed(0)
    net = Net(ATTENTION[name], *(nn.Linear(6, 6) for _ in range(4)))
    made = rewritten(net, 3, 6, circuits=GATED)
    fans, x = fan_outs(segments(made)), torch.randn(1, 3, 6, dtype=torch.float64)
    usual = values(made, x, {})
    taken = {SITE: "input", "aten.amax.default": "self"} | {f"fewspikes.{name}.default": "held" for name in PRODUCTS}
    sums = [node.arguments[taken[node.operator]].name for node in made.graph if node.operator in taken]
    for site in made.sites:
        for position in range(usual[site.node].numel()):
            now = values(made, x, usual, site.node, position)
            reached = sum(int((now[one] != usual[one]).sum()) for one in [*sums, OUTPUT])
            assert int(fans[site.node].dense().flatten()[position]) == reached, site.name


def test_quarter_squares_by_hand() -> None:
    # 3 x 1 = ((3 + 1)^2 - (3 - 1)^2) / 4; the factors are balanced, so that both are sqrt(3).
    net = Net(lambda x: torch.relu(x[:, :1]) * torch.relu(x[:, 1:])).eval()
    x = torch.tensor([[3.0, 1.0]]).repeat(64, 1) * torch.linspace(0, 1, 64)[:, None]
    snn = fs.convert(net, x[:1], x, K=8, circuits=QUARTERS, effort="quick", progress=False)
    first, second = (snn.tensors[f"constants.balance.0.{at}"] for at in range(2))
    assert float(first) == pytest.approx(3.0**-0.5, rel=1e-5)
    assert float(first * second) == pytest.approx(1.0, rel=1e-6)
    assert [site.activation.label for site in snn.sites] == ["relu"] * 2 + ["square(relu(x))"] * 4
    assert snn.report.latency_steps == 16
    assert torch.allclose(snn.as_ann()(x), net(x), atol=1e-6)
    assert float((snn(x) - net(x)).square().mean() / net(x).var()) < 5e-3
    (circuit,) = snn.report.circuits
    assert (circuit.operator, circuit.neurons, circuit.steps) == ("mul", 4, 8)


def test_a_calibration_holds_the_balance_and_fits_one_network_alone() -> None:
    net = Net(lambda x: torch.relu(x[:, :2]) * torch.relu(x[:, 2:])).eval()
    x = torch.rand(64, 4) * torch.tensor([9.0, 9.0, 1.0, 1.0])
    seen = calibrate_model(net, x[:1], x, circuits=QUARTERS)
    assert set(seen.constants) == {"constants.balance.0.0", "constants.balance.0.1"}
    both = [fs.convert(net, x[:1], given, K=8, circuits=QUARTERS, repair=False) for given in (x, seen)]
    assert torch.equal(both[0](x), both[1](x))
    with pytest.raises(FewSpikesError, match="calibrate again"):
        fs.convert(net, x[:1], seen, K=8, circuits=GATED)


def test_factors_are_balanced_by_what_their_ranges_must_hold() -> None:
    # One 4 among 255 zeros: 4 / 256^(1/8) = 2, where the root of the mean square is 1/4. Two batches as one.
    one = Measured(("a", "b"), ("x", "y"))
    tail = torch.tensor([4.0] + [0.0] * 255)
    size = one.statistic(tail, ())
    assert float(size) == pytest.approx(2.0)
    assert float(one.merged([size, size])) == pytest.approx(2.0)
    assert [float(value) for value in one.values([size, torch.tensor(0.5)])] == pytest.approx([0.5, 2.0])


def test_the_balance_does_not_enlarge_what_neurons_cannot_tell_from_silence() -> None:
    # At the second position one factor is 1e-9, below any neuron's step: it counts as 2^-12 of the largest.
    first, second = Measured(("a", "b"), ("x", "y")).values([torch.tensor([1.0, 1e-9]), torch.ones(2)])
    assert (first.tolist(), second.tolist()) == ([1.0, 64.0], [1.0, 1 / 64])
    net = Net(lambda x: (x @ x.mT + torch.tensor([0.0, -50.0, 0.0])).softmax(-1) @ x).eval()
    x = torch.randn(64, 3, 4, generator=torch.Generator().manual_seed(0))
    snn = fs.convert(net, x[:1], x, K=8, circuits=QUARTERS, effort="quick", repair=False, progress=False)
    assert float((snn(x) - net(x)).norm() / (net(x) - net(x).mean(0)).norm()) < 0.2


def test_a_product_inside_an_elementwise_function_is_part_of_its_neuron() -> None:
    net = Net(lambda x, f: (y := f(x)) * torch.sigmoid(1.702 * y), nn.Linear(4, 4))
    for circuits in (GATED, QUARTERS):
        assert len(rewritten(net, 4, circuits=circuits).sites) == 1


def test_a_relay_between_a_product_and_weights_is_billed() -> None:
    net = Net(lambda x, f, g: g(torch.relu(f(x)) * torch.tanh(f(x))), nn.Linear(4, 4), nn.Linear(4, 3))
    carried = rewritten(net, 4, circuits=GATED)
    relayed = rewritten(net, 4, circuits=GATED | {"linear": "relay"})
    assert (len(carried.sites), len(relayed.sites)) == (3, 2)
    assert multiply_adds(segments(carried)).analog == 2 * 4 * 4  # the input's
    assert multiply_adds(segments(relayed)).analog == 2 * 4 * 4 + 4 * 3


RECURRENT = {
    "gru": lambda: nn.GRU(3, 4, batch_first=True),
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2, batch_first=True),
}


@pytest.mark.parametrize("name", [*ATTENTION, *RECURRENT, "divided"])
def test_the_multiply_adds_of_the_ann_are_the_same_whatever_products_are_made_of(name: str, tmp_path) -> None:
    torch.manual_seed(0)
    if name in RECURRENT:
        net = Net(lambda x, f: f(x[..., :3])[0], RECURRENT[name]())
    elif name == "divided":
        net = Net(lambda x, f, g: f(x) / (1 + torch.relu(g(x)).sum(1, keepdim=True)), nn.Linear(6, 6), nn.Linear(6, 6))
    else:
        net = Net(lambda x, *f: torch.relu(ATTENTION[name](x, *f)), *(nn.Linear(6, 6) for _ in range(4)))
    x = torch.randn(8, 5, 6)
    options = {"K": 4, "effort": "quick", "repair": False, "progress": False}
    choices = (None, GATED, QUARTERS, "gated", "neurons", QUARTERS | {"linear": "relay"})
    made = [fs.convert(net.eval(), x, x, circuits=circuits, **options) for circuits in choices]
    assert len({snn.macs.ann for snn in made}) == 1
    fs.save(made[2], tmp_path / "net.fs")
    assert fs.load(tmp_path / "net.fs").macs == made[2].macs
    assert made[4].macs.analog == 0


def test_the_multiply_adds_of_attention_by_hand() -> None:
    # Four maps of 6 to 6 at each of 5 places; scores of 5 x 5, each over 6; 5 x 6 outputs, each over 5, divided once.
    net = Net(ATTENTION["attention"], *(nn.Linear(6, 6) for _ in range(4)))
    for circuits in ({}, GATED, QUARTERS):
        wanted = 4 * 5 * 6 * 6 + 5 * 5 * 6 + 5 * 6 * 5 + 5 * 6
        assert multiply_adds(segments(rewritten(net, 5, 6, circuits=circuits))).ann == wanted


def test_a_factor_that_never_varies_is_named() -> None:
    net = Net(lambda x, f: f(x) * torch.sigmoid(x[:, :1] * 0 + 3.0), nn.Linear(4, 4)).eval()
    x = torch.randn(64, 4)
    snn = fs.convert(net, x[:1], x, K=6, circuits=GATED, effort="quick", progress=False)
    assert "note: sigmoid: constant" in str(snn.report)
    assert torch.allclose(snn(x), net(x), rtol=1e-3)


@pytest.fixture(scope="module")
def attending() -> tuple[Net, Tensor, Tensor]:
    torch.manual_seed(0)
    net = Net(ATTENTION["attention"], *(nn.Linear(6, 6) for _ in range(4))).eval()
    return net, torch.randn(384, 24, 6), torch.randn(128, 24, 6)


def test_repair_diagnosis_budgets_and_distilling_work_on_circuits(attending: tuple[Net, Tensor, Tensor]) -> None:
    net, x, others = attending

    def error(snn: fs.SpikingNetwork) -> float:
        return fs.evaluate(snn, others, reference=net).relative_error

    options = {"circuits": "gated", "effort": "quick", "progress": False}
    plain = fs.convert(net, x[:1], x, K=5, repair=False, **options)
    mended = fs.convert(net, x[:1], x, K=5, **options)
    assert error(mended) < error(plain)
    predicted = sum(site.diagnosis.output_error for site in plain.report.sites)
    assert 0.3 < predicted / error(plain) < 3
    assert error(fs.distil(plain, x, steps=60, progress=False)) < error(plain)
    chosen = fs.convert(net, x[:1], x, K=fs.Budget(spikes=1.5), **options)
    assert fs.evaluate(chosen, others).spikes_per_neuron < 1.6
    assert len(set(chosen.report.k.values())) > 1
    (circuit,) = (one for one in plain.report.circuits if one.operator == "softmax")
    assert circuit.output_error > 0
