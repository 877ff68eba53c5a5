"""Capture: the graph computes what the model computes, and the model stays as it is."""

import sys
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

import fewspikes
from fewspikes import FewSpikesError
from fewspikes.graph.capture import captured_model
from fewspikes.graph.graph import CONSTANT, INPUT
from fewspikes.graph.interpreter import Running, execute, lowered
from fewspikes.operators.rewriting import prepared
from networks import ByName, Pair, Small, small, squeeze_excite


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        return self.function(self, x)


def run(model, x, other):
    captured = captured_model(model.eval(), x)
    return Running(captured.graph, captured.tensors, {})(other)


@pytest.mark.parametrize("make", [small, squeeze_excite])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_graph_computes_the_model_at_any_batch_size(make, batch):
    model, x = make(), torch.randn(batch, 3, 8, 8)
    assert torch.equal(run(model, torch.randn(1, 3, 8, 8), x), model(x))


def test_views_take_channels_last_inputs():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    torch.testing.assert_close(fewspikes.convert(model, torch.zeros(1, 3, 8, 8)).as_ann()(x), model(x))


def test_a_no_grad_block_is_part_of_the_graph():
    def forward(self, x):
        with torch.no_grad():
            y = F.relu(x @ self.weight)
        return y + 1

    model, x = Lambda(forward), torch.randn(3, 4)
    assert torch.equal(run(model, x, x), model(x))


def test_what_depends_on_weights_alone_is_computed_once():
    model = Lambda(lambda self, x: F.relu(F.linear(x, (self.weight - self.weight.mean()) / self.weight.std())))
    graph = prepared(captured_model(model.eval(), torch.zeros(1, 4))).graph
    assert [node.operator for node in graph if node.operator not in (INPUT, CONSTANT)] == [
        "aten.linear.default",
        "site",
        "output",
    ]


def test_keyword_inputs_and_structured_outputs_keep_their_names():
    class Two(nn.Module):
        def forward(self, image, mask):
            return {"sum": F.relu(image + mask), "pair": (image, [mask])}

    named = {"mask": torch.ones(1, 4), "image": torch.zeros(1, 4)}
    captured = captured_model(Two().eval(), named)
    graph = Running(captured.graph, captured.tensors, {})
    values = {spec.name: torch.full((2, 4), float(i)) for i, spec in enumerate(captured.inputs)}
    result = graph(*values.values())
    assert torch.equal(result["sum"], F.relu(values["image"] + values["mask"]))
    assert torch.equal(result["pair"][0], values["image"])
    assert torch.equal(result["pair"][1][0], values["mask"])


def test_a_weight_with_two_names_is_one_tensor():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    assert len(captured_model(model.eval(), torch.zeros(1, 4)).tensors) == 3


def test_shapes_are_known_without_running():
    graph = captured_model(squeeze_excite(), torch.zeros(1, 3, 8, 8)).graph
    assert graph.sizes(graph.output.arguments["value"].name, 7) == (7, 10)


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (Small().train(), torch.zeros(1, 3, 8, 8), "the model is in training mode; call model.eval"),
        (Small().eval().half(), torch.zeros(1, 3, 8, 8), "is torch.float16; convert the model with model.float"),
        (Small().eval(), torch.zeros(1, 3, 8, 8).half(), "input x is torch.float16"),
        (Small().eval(), torch.full((1, 3, 8, 8), float("nan")), "example_inputs holds NaN or inf"),
        (Small().eval(), torch.zeros(1, 4, 8, 8), "torch.export could not capture Small"),
        (Small().eval(), np.zeros((1, 3, 8, 8)), "inputs must be tensors; give torch.from_numpy"),
        (Small().eval(), [], "inputs must be a tensor"),
        (Small().eval(), "image", "inputs must be a tensor"),
        (Small().eval(), torch.zeros(0, 3, 8, 8), "batch axis 0 of one common size"),
        (Small().eval(), (torch.zeros(2, 3), torch.zeros(3, 3)), "batch axis 0 of one common size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_models_and_inputs_raise(model, inputs, message):
    with pytest.raises(FewSpikesError, match=message):
        captured_model(model, inputs)


def test_one_submodule_in_training_mode_raises_with_its_name():
    model = Small().eval()
    model.bn1.train()
    with pytest.raises(FewSpikesError, match="bn1 is in training mode"):
        captured_model(model, torch.zeros(1, 3, 8, 8))


def test_a_weight_that_is_not_finite_raises_with_its_name():
    model = Small().eval()
    model.conv2.weight.data[0, 0, 0, 0] = float("inf")
    with pytest.raises(FewSpikesError, match="weight conv2.weight holds NaN or inf"):
        captured_model(model, torch.zeros(1, 3, 8, 8))


def test_a_model_that_changes_its_buffers_raises():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            self.seen += 1
            return F.relu(x + self.seen)

    with pytest.raises(FewSpikesError, match="the model changes seen in its forward"):
        captured_model(Counter().eval(), torch.zeros(1, 4))


def test_autocast_is_refused():
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(FewSpikesError, match="leave torch.autocast"):
        captured_model(Small().eval(), torch.zeros(1, 3, 8, 8))


def test_a_value_is_freed_after_its_last_use():
    captured = captured_model(small(), torch.zeros(1, 3, 8, 8))
    program = lowered(captured.graph)
    values = program.values((torch.zeros(2, 3, 8, 8),), captured.tensors.__getitem__)
    execute(program.steps, values, {})
    constants = {place for place, _ in program.constants}
    left = [at for at, value in enumerate(values) if at and at not in constants and value is not None]
    assert left == [program.output.at]


def test_what_a_graph_creates_is_created_where_the_network_is():
    class Creates(nn.Module):
        def forward(self, x):
            return F.relu(x) + torch.ones(x.shape[0], 4, device=x.device)

    ann = fewspikes.convert(Creates().eval(), torch.zeros(1, 4)).as_ann().to("meta")
    program = ann.program
    values = program.values((torch.empty(2, 4, device="meta"),), ann.tensors.__getitem__)
    layers = {node.name: F.relu for node in ann.graph.of("site")}
    execute([step._replace(done=()) for step in program.steps], values, layers)
    assert {value.device.type for value in values if isinstance(value, torch.Tensor)} == {"meta"}


def test_an_argument_that_goes_by_name_alone_is_kept():
    model, x = Lambda(lambda self, x: torch.add(F.relu(x @ self.weight), x, alpha=3)).eval(), torch.randn(3, 4)
    assert torch.equal(run(model, x, x), model(x))


TINY = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
PICTURES = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()


class Free(Pair):
    def forward(self, **kwargs):
        return super().forward(**kwargs)


def scripted(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module)


P = torch.zeros(2, 4)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 4, batch_first=True)
        self.eval()

    def forward(self, x, h):
        return self.rnn(x, (h, h))[0]


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (Pair().eval(), {"q": P, "z": P}, r"forward of Pair takes p, q; got by the names q, z"),
        (ByName().eval(), (P, P), r"takes p, q \(p, q by name only\); got 2 by position .* give a dict"),
        (Free().eval(), {"q": P, "p": P}, r"takes \*\*kwargs, .*; name its inputs, as in forward\(self, q, p\)"),
        (PICTURES, torch.zeros(3, 8, 8), r"example of shape \(3, 8, 8\) has no batch axis in front; give x\[None\]"),
        (TINY, torch.zeros(4), r"example of shape \(4,\) has no batch axis in front; give x\[None\]"),
        (Lambda(lambda m, x: F.relu(x.reshape(len(x), -1))).eval(), P, r"x.shape\[0\] does, len\(x\) .* freeze"),
        (Lambda(lambda m, x: F.relu(x.view(int(x.shape[0]), -1))).eval(), P, r"int\(x.shape\[0\]\) freeze"),
        (Lambda(lambda m, x: F.relu(x) if x.sum() > 0 else x).eval(), P, "branches on the values of a tensor"),
        (Lambda(lambda m, x: sys.exit(0)).eval(), P, "its forward called sys.exit"),
        (
            nn.Sequential(nn.LSTM(4, 4)).eval(),
            torch.zeros(2, 3, 4),
            r"0 \(LSTM\) takes the batch on axis 1, .*batch_first",
        ),
        (
            Recurrent(),
            (torch.zeros(2, 3, 4), torch.zeros(2, 1, 4)),
            r"states do not fit its inputs; axis 0 .* must be the batch.*h.transpose\(0, 1\), as docs/guide.md shows",
        ),
        (Pair().eval(), (P, None), "an input is None; leave it out: give a dict of the others"),
        (Lambda(lambda m, x: None).eval(), P, "the model returns no tensor"),
        (scripted(TINY), P, r"is a script module \(torch.jit\); give the nn.Module"),
        (nn.Sequential(scripted(nn.Linear(4, 4)), nn.ReLU()).eval(), P, "0 is a script module"),
        (torch.export.export(TINY, (P,)), P, "got ExportedProgram; give the module that it was exported from"),
        (torch.export.export(TINY, (P,)).module(), P, "comes out of torch.export; give the module"),
        (TINY, P.to("meta"), "input x is on meta, weight 0.weight on cpu; meta holds no values"),
    ],
)
def test_each_wrong_model_or_example_is_told_its_own_remedy(model, inputs, message):
    with pytest.raises(FewSpikesError, match=message) as error:
        captured_model(model, inputs)
    assert "\n" not in str(error.value)


def odd_tensors(x):
    """One of each kind that is no plain block of real numbers."""
    yield "layout sparse_coo", x.to_sparse()
    yield "layout sparse_csr", x.to_sparse_csr()
    yield "nested tensor", torch.nested.nested_tensor([x, x], layout=torch.strided)
    yield "nested tensor", torch.nested.nested_tensor([x, x], layout=torch.jagged)
    yield "quantised", torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)
    yield "complex", x.to(torch.complex64)
    yield "a TwoTensor", TwoTensor(x, x)  # a wrapper, as torchao's weights are


@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_plain_block_of_numbers_raise_wherever_they_are():
    snn, x = fewspikes.convert(TINY, P), torch.ones(4, 4)
    for word, odd in odd_tensors(x):
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
        model[0].register_buffer("extra", odd)
        for call in (
            lambda model=model: captured_model(model, P),
            lambda odd=odd: captured_model(TINY, odd),
            lambda odd=odd: fewspikes.convert(TINY, P, odd),
            lambda odd=odd: fewspikes.convert(TINY, P, [(odd, 0)]),
            lambda odd=odd: fewspikes.evaluate(snn, [odd]),
            lambda odd=odd: snn(odd),
        ):
            with pytest.raises(FewSpikesError, match=word):
                call()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["dynamic", "prepared"])
def test_a_network_quantised_by_torch_is_named(how):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
    if how == "dynamic":
        model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    else:
        model.qconfig = torch.ao.quantization.get_default_qconfig("x86")
        torch.ao.quantization.prepare(model, inplace=True)
    with pytest.raises(FewSpikesError, match="is quantised by torch.ao .*; give the float model"):
        captured_model(model, P)


def test_a_condition_is_no_factor():
    class Masked(nn.Module):
        def forward(self, x):
            return torch.relu(torch.where(torch.eye(4) > 0, x, 0.0))

    x = torch.randn(3, 4, 4)
    torch.testing.assert_close(fewspikes.convert(Masked().eval(), x).as_ann()(x), torch.relu(x * torch.eye(4)))


def test_hooks_that_a_model_installs_when_it_first_runs_are_not_there_twice():
    class Hooked(nn.Module):
        """Records what its layer gives, by a hook, as models of transformers do."""

        def __init__(self):
            super().__init__()
            self.layer, self.seen, self.is_hooked = nn.Linear(4, 4), [], False

        def forward(self, x):
            if not self.is_hooked:
                self.layer.register_forward_hook(lambda module, given, result: self.seen.append(result))
                self.is_hooked = True
            self.seen.clear()
            y = torch.relu(self.layer(x))
            return y + sum(self.seen)

    model, x = Hooked().eval(), torch.randn(3, 4)
    y = model.layer(x)
    wanted = torch.relu(y) + y
    assert torch.equal(run(model, x[:1], x), wanted)
    assert not model.layer._forward_hooks
    assert torch.equal(model(x), wanted)
