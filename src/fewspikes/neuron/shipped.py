"""The tables that come with the library: the best fits found, for 3 to 16 steps."""

import json
from functools import cache
from importlib import resources

from fewspikes.base.errors import FewSpikesError
from fewspikes.neuron.parameters import FSParameters

SHIPPED = (
    "silu",
    "sigmoid",
    "tanh",
    "gelu",
    "gelu_tanh",
    "hardswish",
    "hardsigmoid",
    "softplus",
    "elu",
    "leaky_relu",
    "mish",
)
STEPS = range(3, 17)
VARIANTS = ("low-error", "low-spikes")


def shipped(name: str, K: int, variant: str = "low-error") -> FSParameters:
    """The shipped table of an activation with K steps, on the activation's default domain.

    Args:
        name: "silu", "sigmoid", "tanh", "gelu", "gelu_tanh", "hardswish", "hardsigmoid", "softplus", "elu",
            "leaky_relu" or "mish".
        K: time steps, 3 to 16.
        variant: "low-error", or "low-spikes" with fewer spikes at a modest extra error.

    Returns:
        The parameters; their provenance says how they were made and how good they are.

    Raises:
        FewSpikesError: no such table.

    >>> shipped("silu", 8).K
    8
    """
    if name not in SHIPPED:
        raise FewSpikesError(f"no shipped tables for {name!r}; there are {', '.join(SHIPPED)}. Fit it with fs.fit")
    if variant not in VARIANTS:
        raise FewSpikesError(f"the variant must be {' or '.join(map(repr, VARIANTS))}; got {variant!r}")
    tables = all_shipped(name)
    if (K, variant) not in tables:
        steps = sorted(k for k, other in tables if other == variant)
        raise FewSpikesError(
            f"no shipped table of {name} with K={K!r}; there are K = {steps[0]} to {steps[-1]}. Fit it with fs.fit"
        )
    return tables[K, variant]


@cache
def all_shipped(name: str) -> dict[tuple[int, str], FSParameters]:
    """All tables of an activation, by K and variant; empty where it has none."""
    file = resources.files("fewspikes").joinpath("neuron", "tables", f"{name}.json")
    if not file.is_file():
        return {}
    content = json.loads(file.read_text())
    tables = {}
    for entry in content["tables"]:
        numbers = {key: entry.pop(key) for key in ("T", "h", "d", "offset")}
        provenance = {**content["provenance"], **entry}
        tables[entry["K"], entry["variant"]] = FSParameters(
            **numbers, activation=name, domain=tuple(content["domain"]), provenance=provenance
        )
    return tables
