"""Activations: torch's own functions, and where they turn."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from fewspikes import FewSpikesError
from fewspikes.neuron.activation import ACTIVATIONS, Activation

TORCH = {
    "identity": lambda x: x,
    "powers_of_two": lambda x: x,
    "relu": F.relu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "softplus": F.softplus,
    "elu": F.elu,
    "leaky_relu": F.leaky_relu,
    "mish": F.mish,
    "exp": torch.exp,
    "reciprocal": torch.reciprocal,
    "rsqrt": torch.rsqrt,
    "square": torch.square,
}


def domain(name):
    return (-20.0, 20.0) if name == "relu" else Activation(name).domain


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_torchs_function_of_that_name(name):
    x = torch.linspace(*domain(name), 1001, dtype=torch.float64)
    assert torch.equal(Activation(name)(x), TORCH[name](x))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_it_is_monotone_between_its_turning_points_and_turns_at_each(name):
    low, high = domain(name)
    ends = [low, *Activation(name).turning_points, high]
    signs = []
    for a, b in pairwise(ends):
        rise = Activation(name)(torch.linspace(a, b, 20_001, dtype=torch.float64)).diff()
        rise = rise[rise.abs() > 1e-14]  # what is left where it is flat is rounding
        assert bool((rise > 0).all()) or bool((rise < 0).all()), (name, a, b)
        signs.append(bool(rise[0] > 0))
    assert all(signs[i] != signs[i + 1] for i in range(len(signs) - 1))


@pytest.mark.parametrize("activation", [Activation("gelu_tanh"), Activation("relu", 6.0)])
def test_an_activation_is_the_same_after_json(activation):
    assert Activation.from_json(activation.to_json()) == activation


@pytest.mark.parametrize(
    ("name", "hint"), [("sillu", "did you mean 'silu'"), ("swish", "did you mean 'silu'"), ("q", "known: relu, silu")]
)
def test_an_unknown_name_raises_with_the_nearest(name, hint):
    with pytest.raises(FewSpikesError, match=hint):
        Activation(name)


def test_a_cap_is_for_a_relu():
    with pytest.raises(FewSpikesError, match="a cap must be"):
        Activation("silu", cap=3.0)
