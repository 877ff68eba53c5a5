"""Our own rules of shapes are torch's, and loading a network needs no compiler."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fewspikes as fs
from fewspikes.graph.functions import named
from fewspikes.models import resnet8
from fewspikes.operators.rule import Linear
from fewspikes.operators.rules import RULES

aten = torch.ops.aten
pairs = st.lists(st.integers(1, 3), min_size=2, max_size=2)


def size(name, args):
    """The shape that the operator's row gives."""
    rows = RULES.of(Linear, name.split(".")[1])
    return rows[0].sizes(named(name, args)) if rows else None


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


@given(pairs, st.lists(st.integers(0, 3), min_size=2, max_size=2), pairs, pairs, st.sampled_from([1, 2, 4]))
def test_a_convolution_has_the_shape_that_torch_gives_it(stride, padding, dilation, kernel, groups):
    x, weight = meta(5, 8, 11, 9), meta(4, 8 // groups, *kernel)
    args = (x, weight, meta(4), stride, padding, dilation, groups)
    assert tuple(size("aten.conv2d.default", args)) == tuple(aten.conv2d.default(*args).shape)
    for count in (2, 3, 4, 5, 6):
        if groups == 1:
            given = args[:count]
            assert tuple(size("aten.conv2d.default", given)) == tuple(aten.conv2d.default(*given).shape)


@given(st.lists(st.sampled_from([1, 3]), max_size=4), st.lists(st.sampled_from([1, 3]), max_size=4))
def test_a_sum_has_the_shape_that_torch_gives_it(a, b):
    x, y = meta(*a), meta(*b)
    assert tuple(size("aten.add.Tensor", (x, y))) == tuple((x + y).shape)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3)])
@pytest.mark.parametrize("bias", [(), (None,), (meta(5),)])
def test_a_linear_map_has_the_shape_that_torch_gives_it(shape, bias):
    args = (meta(*shape), meta(5, 3), *bias)
    assert tuple(size("aten.linear.default", args)) == tuple(aten.linear.default(*args).shape)


@given(st.integers(1, 4), st.integers(1, 4))
def test_a_pool_has_the_shape_that_torch_gives_it(height, width):
    x = meta(5, 3, 8, 8)
    shape = size("aten.adaptive_avg_pool2d.default", (x, [height, width]))
    assert tuple(shape) == tuple(aten.adaptive_avg_pool2d.default(x, [height, width]).shape)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("aten.conv2d.default", (meta(1, 3, 8, 8), meta(4, 2, 3, 3))),  # other channels
        ("aten.conv2d.default", (meta(3, 8, 8), meta(4, 3, 3, 3))),  # no batch
        ("aten.conv2d.default", (meta(1, 3, 2, 8), meta(4, 3, 3, 3))),  # nothing is left
        ("aten.linear.default", (meta(2, 3), meta(5, 4))),
        ("aten.add.Tensor", (meta(2, 3), meta(2, 4))),
        ("aten.add.Tensor", (meta(2), meta(2, dtype=torch.int64))),
        ("aten.relu.default", (meta(2),)),
    ],
)
def test_whatever_is_not_plain_is_left_to_torch(name, args):
    assert size(name, args) is None


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("aten.conv2d.default", (meta(1, 3, 8, 8), meta(4, 3, 3, 3), meta(5))),
        ("aten.linear.default", (meta(2, 3), meta(5, 3), meta(4))),
    ],
)
def test_weights_that_torch_refuses_when_they_run_are_refused(name, args):
    with pytest.raises(fs.FewSpikesError, match="weights of .* for inputs of torch.float32"):
        size(name, args)


def test_loading_a_network_loads_no_compiler(tmp_path):
    fs.save(fs.convert(resnet8().eval(), torch.zeros(1, 3, 32, 32)), tmp_path / "net.fs")
    code = (
        "import sys, fewspikes; fewspikes.load(sys.argv[1]); "
        "loaded = {'sympy', 'torch._dynamo', 'torch._inductor'} & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "net.fs")], check=True)
