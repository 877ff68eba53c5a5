"""A layer's one pass equals its parts done one after the other, counts included, and harms no one's data."""

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

import fewspikes as fs
from fewspikes.neuron.kernels.threads import share_out
from fewspikes.neuron.layer import count_outside, overwriting
from networks import small, squeeze_excite
from strategies import arguments, inputs_for

LAYOUTS = {
    "channels-last": lambda x: x.to(memory_format=torch.channels_last),
    "contiguous": lambda x: x,
    "strided": lambda x: x[:, :, ::2],
    "transposed": lambda x: x.transpose(2, 3),
    "one pixel": lambda x: x[:, :, :1, :1],
    "one image": lambda x: x[:1],
    "empty": lambda x: x[:0],
}


def parts(neuron, x):
    """Output, spikes and gate inputs outside the domain, by plain torch and the reference loop."""
    seen = neuron.gate(x)
    y, spikes = fs.apply(seen, neuron.code, engine="reference")
    for factor in (neuron.scale, neuron.gain):
        if factor is not None:
            y = y * factor.to(y.dtype).view([-1 if i == neuron.axis else 1 for i in range(x.ndim)])
    return y, int(spikes.sum(dtype=torch.int64)), count_outside(seen, neuron.code.domain)


def one_pass(neuron, x):
    """The same by the layer itself."""
    seen = []
    neuron.count_hooks.append(lambda *found: seen.append(found))
    y = neuron(x)
    neuron.count_hooks.clear()
    return (y, *seen[0])


def run_alone(program, **environment):
    """Run it in a process of its own, where the types of arguments are not checked."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def check(neuron, x):
    y, spikes, outside = one_pass(neuron, x)
    wanted = parts(neuron, x)
    assert torch.equal(y.nan_to_num(7.5), wanted[0].nan_to_num(7.5))
    assert torch.equal(y.isnan(), wanted[0].isnan())
    assert (spikes, outside) == wanted[1:]


@given(st.data(), st.sampled_from([torch.float32, torch.float64]))
def test_any_neuron_on_any_input(data, dtype):
    p = fs.FSParameters(*data.draw(arguments()), domain=(-3.0, 5.0))
    check(fs.FSNeuron(p), torch.tensor(data.draw(inputs_for(p)), dtype=dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("own", [(), ("shift",), ("scale",), ("shift", "scale")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shift_and_range_in_every_layout(layout, own, dtype):
    torch.manual_seed(1)
    x = LAYOUTS[layout](torch.randn(3, 5, 24, 30, dtype=dtype) * 4)
    values = {"shift": torch.randn(5), "scale": torch.rand(5) + 0.5}
    for p in (fs.published("silu"), fs.relu_parameters(5, 3.0, "nearest")):
        check(fs.FSNeuron(p, **{name: values[name] for name in own}), x)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 700), (400_000, 3), (3, 7, 211, 211), (1, 1, 500, 500)])
def test_parts_for_threads_keep_their_channels(shape, threads):
    torch.manual_seed(1)
    x, p = torch.randn(shape) * 3, fs.published("silu")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        check(fs.FSNeuron(p, torch.randn(shape[1]), torch.rand(shape[1]) + 0.5), x)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("layout", ["rows", "channels-last", "contiguous"])
@pytest.mark.parametrize("channels", [1, 511, 4096, 65_537])
def test_counts_are_exact_at_any_width(channels, layout):
    random = np.random.default_rng(channels)
    T, h, d = (random.normal(0.1, 0.3, 24) for _ in range(3))
    shape = (3, channels) if layout == "rows" else (3, channels, 1, 2)
    x = torch.from_numpy(random.normal(0, 2, shape).astype(np.float32))
    x = x.to(memory_format=torch.channels_last) if layout == "channels-last" else x
    shift, scale = (torch.from_numpy(f(channels).astype(np.float32)) for f in (random.standard_normal, random.random))
    neuron = fs.FSNeuron(fs.FSParameters(T, h, d, domain=(-3.0, 3.0)), shift, scale + 0.5)

    wide = [-1, *[1] * (x.ndim - 2)]
    v = (x.numpy() + shift.numpy().reshape(wide)) / (scale + 0.5).numpy().reshape(wide)
    beyond = int(((v < -3) | (v > 3)).sum())
    fired, y = 0, np.zeros_like(v)
    for threshold, reset, weight in zip(*(values.astype(np.float32) for values in (T, h, d)), strict=True):
        z = v >= threshold
        fired += int(z.sum())
        y, v = y + weight * z.astype(np.float32), v - reset * z.astype(np.float32)

    got, spikes, outside = one_pass(neuron, x)
    assert (spikes, outside) == (fired, beyond)
    assert np.array_equal(got.numpy(), y * (scale + 0.5).numpy().reshape(wide))
    assert fired > 2**16 or channels < 4096  # more than 16 bits hold


@pytest.mark.parametrize("stride", [0, 1, 7])
def test_an_axis_with_one_channel_may_have_any_stride(stride):
    x = torch.randn(4, 6).as_strided((4, 1, 6), (6, stride, 1))
    check(fs.FSNeuron(fs.relu_parameters(5, 3.0), torch.tensor([0.3]), torch.tensor([1.5])), x)


def test_a_gain_stretches_the_output_in_the_same_pass():
    x, p = torch.randn(4, 6, 9, 9), fs.relu_parameters(4, 2.0, "nearest")
    for layout in (torch.contiguous_format, torch.channels_last):
        neuron = fs.FSNeuron(p, torch.randn(6), gain=torch.rand(6) + 0.5)
        check(neuron, x.to(memory_format=layout))


def test_a_wrong_number_of_channels_raises():
    neuron = fs.FSNeuron(fs.relu_parameters(), torch.zeros(4))
    with pytest.raises(fs.FewSpikesError, match=r"4 channels on axis 1 wanted; got shape \(2, 3\)"):
        neuron(torch.zeros(2, 3))


def test_a_layer_leaves_its_input_alone_unless_told_that_nothing_else_needs_it():
    neuron, x = fs.FSNeuron(fs.published("silu")), torch.randn(4, 5)
    before, wanted = x.clone(), fs.apply(x, fs.published("silu"))[0]
    assert torch.equal(neuron(x), wanted)
    assert torch.equal(x, before)
    with overwriting(frozenset([neuron])):
        y = neuron(x)
    assert y.data_ptr() == x.data_ptr()
    assert torch.equal(y, wanted)


def test_a_network_overwrites_only_what_nothing_else_reads():
    x = torch.randn(4, 3, 8, 8)
    snn = fs.convert(small(), x)
    assert snn._overwritable == tuple(range(len(snn.sites)))  # a convolution's output, and a sum

    class Skip(nn.Module):
        def forward(self, x):
            return torch.relu(x + 1) + x + torch.relu(x.flatten(1))

    taken = fs.convert(Skip().eval(), torch.zeros(1, 4))
    assert taken._overwritable == (0,)  # not the network's input, nor a view of it
    x = torch.randn(3, 4)
    before = x.clone()
    taken(x)
    assert torch.equal(x, before)


def test_hooks_see_gate_inputs_as_they_were():
    snn, x = fs.convert(squeeze_excite(), torch.zeros(1, 3, 16, 16)), torch.randn(2, 3, 16, 16)
    wanted, kept = snn(x), {}
    for name, neuron in snn.neurons.items():
        neuron.register_forward_pre_hook(lambda _, args, name=name: kept.__setitem__(name, args[0]))
    assert torch.equal(snn(x), wanted)
    for name, neuron in snn.neurons.items():
        again, _ = fs.apply(kept[name], neuron.code)
        assert torch.equal(neuron(kept[name]), again)
    assert float(kept[next(iter(kept))].min()) < -0.3  # a SiLU's output never is: this is its input


def test_callers_at_once_do_not_overwrite_each_other():
    torch.manual_seed(2)
    snn, images = fs.convert(squeeze_excite(), torch.zeros(1, 3, 16, 16)), torch.randn(24, 3, 3, 16, 16)
    wanted = [snn(x) for x in images]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(snn, images))
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_both_ways_of_counting_agree():
    snn, x = fs.convert(squeeze_excite(), torch.zeros(1, 3, 16, 16)), torch.randn(5, 3, 16, 16) * 9
    with fs.count(snn) as fast:
        y = snn(x)
    with fs.count(snn, synops=True) as slow:
        assert torch.equal(snn(x), y)
    assert fast.by_site == slow.by_site
    assert fast.clipped_by_site == slow.clipped_by_site
    assert sum(fast.clipped_by_site.values()) > 0


def test_export_keeps_each_layer_as_one_operator():
    x = torch.randn(2, 3, 16, 16)
    snn = fs.convert(squeeze_excite(), x)
    with torch.no_grad():
        exported = torch.export.export(snn, (x,))
    calls = [node for node in exported.graph.nodes if "staircase" in str(node.target)]
    assert len(calls) == len(snn.sites)
    with torch.no_grad():
        assert torch.equal(exported.module()(x), snn(x))


def test_compile_sees_through_a_network_without_a_break():
    run_alone("""
        import torch, fewspikes as fs
        from networks import squeeze_excite

        x = torch.randn(2, 3, 16, 16)
        snn = fs.convert(squeeze_excite(), x)
        with torch.no_grad():
            assert torch.equal(torch.compile(snn, backend="eager", fullgraph=True)(x), snn(x))
    """)


def test_the_operator_is_sound():
    x, p = torch.randn(3, 4), fs.published("sigmoid")
    parameters = [torch.tensor(v, dtype=torch.float32) for v in (p.T, p.h, p.d, p.offset)]
    torch.library.opcheck(torch.ops.fewspikes.staircase, (x, *parameters))


def test_the_triton_kernel_equals_the_reference_bit_for_bit():
    pytest.importorskip("triton")
    run_alone(
        """
        import itertools, torch, fewspikes as fs
        from fewspikes.neuron.kernels import compiled, cuda
        from fewspikes.neuron.recurrence import cast

        torch.manual_seed(0)
        odd = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-42, -1e-42, 3e38])
        tables = [fs.published("silu"), fs.relu_parameters(7, 3.0, "nearest")]
        tables += [fs.FSParameters(*(torch.randn(3, K) * 3).numpy().round(1), offset=0.3) for K in range(1, 25)]
        for p, dtype in itertools.product(tables, (torch.float32, torch.float64)):
            on = torch.tensor(p.T).float()
            x = torch.cat([torch.randn(1500) * 5, odd, on, on.nextafter(on + 1), on.nextafter(on - 1)]).to(dtype)
            got, wanted = (fs.apply(x, p, engine=engine) for engine in ("triton", "reference"))
            for a, b in zip(got, wanted):
                assert torch.equal(a.nan_to_num(7.5), b.nan_to_num(7.5)), (p.K, dtype)
                assert torch.equal(a.isnan(), b.isnan())
        p = fs.published("silu")
        own = tuple(torch.rand(5) + 0.5 for _ in range(3))
        for layout, channels in itertools.product((torch.channels_last, torch.contiguous_format), (own, None)):
            x = (torch.randn(3, 5, 7, 11) * 6).to(memory_format=layout)
            arrays = None if channels is None else compiled.Channels(*(v.numpy() for v in channels))
            y, fired, outside = cuda.layer(x, cast(p, x), channels, 1, p.domain, False)
            wanted, *counts = compiled.layer(x, compiled.table(*cast(p, x)), arrays, 1, p.domain, False)
            assert torch.equal(y, wanted) and [int(fired), int(outside)] == counts and counts[1] > 0
    """,
        TRITON_INTERPRET="1",
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_network_on_a_gpu_counts_what_it_counts_on_the_cpu():
    x, p = torch.randn(4, 5, 33, 20) * 4, fs.published("silu")
    neuron = fs.FSNeuron(p, torch.randn(5), torch.rand(5) + 0.5)
    y, spikes, outside = one_pass(neuron, x)
    z, *counts = one_pass(neuron.cuda(), x.cuda())
    assert torch.equal(z.cpu(), y)
    assert [int(v) for v in counts] == [spikes, outside]


def test_an_error_in_a_thread_reaches_the_caller():
    def fail(part):
        if part.start:
            raise ValueError("in the second part")

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ValueError, match="in the second part"):
            share_out(fail, 1 << 20, 1)
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_can_run_layers_after_its_parent_did():
    run_alone("""
        import os, signal, torch, fewspikes as fs

        torch.set_num_threads(2)
        neuron, x = fs.FSNeuron(fs.published("silu")), torch.linspace(-9, 9, 1 << 20)
        wanted = neuron(x)
        child = os.fork()
        if not child:  # torch's own operators may hang in it, so numpy compares
            signal.alarm(60)
            os._exit(0 if (neuron(x).numpy() == wanted.numpy()).all() else 1)
        assert os.waitpid(child, 0)[1] == 0
    """)


@pytest.mark.parametrize("values", [torch.ones(2).to_sparse(), torch.ones(2).long(), torch.ones(2, 1)], ids=repr)
def test_a_shift_that_is_no_vector_of_numbers_is_refused(values):
    with pytest.raises(fs.FewSpikesError, match="shift must be a vector of finite numbers, one per channel; got"):
        fs.FSNeuron(fs.published("silu"), values)


def test_an_axis_of_channels_is_counted_from_the_first():
    with pytest.raises(fs.FewSpikesError, match="axis must be a whole number"):
        fs.FSNeuron(fs.published("silu"), torch.ones(2), axis=-1)


@pytest.mark.filterwarnings("ignore")
def test_the_exporter_of_onnx_by_dynamo_gives_the_same_network():
    onnx = pytest.importorskip("onnx.reference")
    pytest.importorskip("onnxscript")
    x = torch.randn(4, 3, 8, 8)
    snn = fs.convert(small(), x, x, K=4)
    with torch.no_grad():
        model = torch.onnx.export(snn, (x,), dynamo=True).model_proto
    (got,) = onnx.ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x.numpy()})
    assert {node.domain for node in model.graph.node} == {""}
    assert torch.allclose(torch.from_numpy(got), snn(x), atol=1e-5)


def legacy_onnx(snn, x):
    torch.onnx.export(snn, (x,), BytesIO(), dynamo=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("trace", "name"),
    [
        (torch.jit.trace, "torch.jit.trace"),
        (lambda snn, x: torch.jit.script(snn), "torch.jit.script"),
        (legacy_onnx, r"torch.onnx.export\(dynamo=False\)"),
        (lambda snn, x: make_fx(snn)(x), "make_fx"),
        (lambda snn, x: make_fx(snn, pre_dispatch=True)(x), "make_fx"),
        (lambda snn, x: torch.fx.symbolic_trace(snn), "torch.fx.symbolic_trace"),
    ],
)
def test_tracers_that_cannot_see_neurons_are_refused_with_the_way_that_works(trace, name):
    x = torch.randn(4, 3, 8, 8)
    snn = fs.convert(small(), x, x, K=4)
    wanted = snn(x)
    with pytest.raises(fs.FewSpikesError, match=f"{name}.*; use torch.export, torch.onnx.export.dynamo=True. or"):
        trace(snn, x)
    assert torch.equal(snn(x), wanted)


@pytest.mark.filterwarnings("ignore")
def test_a_layer_and_apply_alone_are_refused_to_tracers_too():
    code, x = fs.relu_parameters(4, 1.0), torch.rand(5)
    for function in (fs.FSNeuron(code), lambda x: fs.apply(x, code)[0]):
        with pytest.raises(fs.FewSpikesError, match=r"torch.jit.trace.*cannot see"):
            torch.jit.trace(function, x)
        with pytest.raises(fs.FewSpikesError, match=r"make_fx cannot see"):
            make_fx(function)(x)
