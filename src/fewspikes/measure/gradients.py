"""Whether gradients pass through a network: an operator of a user's own has one only if somebody registered it."""

from collections.abc import Iterable

import torch

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.functions import is_aten
from fewspikes.graph.graph import INPUT
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.activation import Activation
from fewspikes.operators.expressions import operators_in
from fewspikes.operators.rule import Shapes
from fewspikes.operators.trial import Trial, leads_back

_PLACES = (-1.0, -0.5, 0.5, 1.0)


def without_gradient(snn: SpikingNetwork) -> tuple[str, ...]:
    """The operators outside of ATen, of the graph and of its sites' expressions, that no gradient passes through."""
    segments, rules = snn.structure.segments, snn.structure.rules
    specs = zip(snn.graph.of(INPUT), snn.inputs, strict=True)
    dtypes = {node.name: spec.dtype for node, spec in specs}
    found = []
    for node in snn.graph:
        if "." in node.operator and not is_aten(node.operator):
            trial = Trial(segments.call(node), snn.tensors, dtypes)
            if not trial.passes_gradients(needed=not rules.has(Shapes, node.short)):
                found.append(node.operator)
    found += [site.activation.label for site in snn.sites if not _passes(site.activation)]
    return tuple(dict.fromkeys(found))


def check_gradients(snn: SpikingNetwork, what: str) -> None:
    """Raise FewSpikesError where what is asked for needs gradients that an operator does not have."""
    missing = without_gradient(snn)
    if missing:
        raise FewSpikesError(f"{what} needs gradients, and {no_gradient(missing)}")


def no_gradient(missing: Iterable[str]) -> str:
    """Which operators have none, and what to do."""
    return f"{', '.join(missing)} has none: register one by torch.library.register_autograd"


def _passes(activation: Activation) -> bool:
    if all(is_aten(operator) for operator in operators_in(activation) if "." in operator):
        return True
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.tensor(_PLACES, dtype=torch.float64, requires_grad=True)
        return leads_back([activation(x)], [x], needed=True)
