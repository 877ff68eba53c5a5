"""Whole numbers and truths that no input changes are structure: rows see them, wherever a network came from."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import fewspikes as fs
from captured import Net
from fewspikes.graph.builder import Builder
from fewspikes.graph.capture import captured_model
from fewspikes.graph.graph import Graph, Ref
from fewspikes.operators.call import Call, fixed_of
from fewspikes.operators.rules import RULES, carriers

PICKED = torch.tensor([3, 0, 3, 1])


class Picks(nn.Module):
    """A neuron in front of an index and one behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("index", PICKED)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(torch.relu(x).index_select(1, self.index))


@pytest.fixture(scope="module")
def picks() -> fs.SpikingNetwork:
    return fs.convert(Picks().eval(), torch.zeros(1, 4))


def loaded(snn: fs.SpikingNetwork, folder: object) -> fs.SpikingNetwork:
    fs.save(snn, f"{folder}/net.fs")
    return fs.load(f"{folder}/net.fs")


@pytest.mark.parametrize("way", ["converted", "loaded", "copied", "pickled", "with other neurons", "in float64"])
def test_a_network_sees_its_indices_wherever_it_came_from(way: str, picks: fs.SpikingNetwork, tmp_path: object) -> None:
    made = {
        "converted": lambda: picks,
        "loaded": lambda: loaded(picks, tmp_path),
        "copied": lambda: copy.deepcopy(picks),
        "pickled": lambda: pickle.loads(pickle.dumps(picks)),
        "with other neurons": lambda: picks.with_neurons({}),
        "in float64": lambda: copy.deepcopy(picks).double(),
    }
    snn = made[way]()
    first = snn.sites[0].name
    assert snn.fan_out[first].dense().tolist() == [1, 1, 0, 2]  # how often PICKED names each position
    x = torch.tensor([[0.0, 5.0, 7.0, 9.0]], dtype=snn.dtype)
    assert snn.as_ann()(x).tolist() == [[9.0, 0.0, 9.0, 5.0]]


def test_weights_are_no_structure() -> None:
    tensors = {"index": PICKED, "mask": PICKED > 0, "weight": torch.ones(2), "phase": torch.ones(2) * 1j}
    assert sorted(fixed_of(tensors)) == ["index", "mask"]


class Reads(nn.Module):
    """`stack` of a signal and of what is asked for, so that a call has it as an argument."""

    def __init__(self, ask: object) -> None:
        super().__init__()
        self.register_buffer("index", PICKED)
        self.register_buffer("weight", torch.tensor([0.5, 1.5]))
        self.ask = ask

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.relu(x), self.ask(self, x).clone()


@pytest.mark.parametrize(
    ("ask", "found"),
    [
        (lambda net, x: net.index, PICKED),
        (lambda net, x: net.index.expand(x.shape[0], -1), PICKED.expand(2, -1)),  # a batch is two images
        (lambda net, x: torch.arange(x.shape[0]) * 2 + x.shape[1], torch.tensor([4, 6])),
        (lambda net, x: (net.index > 0)[None].expand(x.shape[0], -1), (PICKED > 0).expand(2, -1)),
        (lambda net, x: net.weight, None),
        (lambda net, x: net.weight[None].expand(x.shape[0], -1) > 1, None),
        (lambda net, x: x > 0, None),
    ],
)
def test_a_row_sees_what_is_made_of_fixed_tensors_and_sizes(ask: object, found: Tensor | None) -> None:
    captured = captured_model(Reads(ask).eval(), torch.zeros(2, 4))
    graph = captured.graph
    node = graph[graph.output.reads[1]]
    call = Call(node, graph, RULES, carriers(graph), tensors=captured.tensors)
    seen = call.fixed("self") if "self" in node.arguments else call.fixed_behind(Ref(node.name))
    assert (seen is None and found is None) or torch.equal(seen, found)


@pytest.mark.parametrize("index", [[0, 4], [-1, 0]])
def test_an_index_beyond_its_axis_in_a_file_is_refused(
    index: list[int], picks: fs.SpikingNetwork, tmp_path: object
) -> None:
    forged = copy.deepcopy(picks)
    for tensor in (t for t in forged.tensors.values() if t.dtype == torch.int64):
        tensor.copy_(torch.tensor([*index, 0, 0]))
    with pytest.raises(fs.FewSpikesError, match="index_select.* with these arguments"):
        loaded(forged, tmp_path)


def test_an_index_of_the_batch_is_refused() -> None:
    net = Net(lambda x: torch.relu(torch.relu(x).index_select(0, torch.zeros(1, dtype=torch.int64))))
    with pytest.raises(fs.FewSpikesError, match="mixed by operator aten.index_select"):
        fs.convert(net.eval(), torch.zeros(2, 4))


def test_what_circuits_add_is_where_the_weights_are() -> None:
    with FakeTensorMode():  # knows of devices that are not here
        tensors = {"weight": torch.ones(3, device="cuda:1")}
        Builder(Graph(()), tensors).constant(torch.tensor([2, 0]))
    assert {tensor.device for tensor in tensors.values()} == {torch.device("cuda:1")}
