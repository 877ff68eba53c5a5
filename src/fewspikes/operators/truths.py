"""Whether a row tells the truth about an operator: calls of it on random numbers, beside what the row says of them.

Each check returns what is wrong, or "" where nothing is.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fewspikes.graph.builder import Builder
from fewspikes.graph.functions import is_fresh
from fewspikes.graph.graph import CONSTANT, Batch, Ref, replaced
from fewspikes.operators.call import IMAGES
from fewspikes.operators.rule import Circuit, Digital, Elementwise, Linear, Neurons, Rule, Shapes
from fewspikes.operators.trial import Trial, apart, batch_axis, called, told
from fewspikes.reach.boxes import identity, reached
from fewspikes.reach.factors import Unknown

_NUMBERS = 2048  # that an activation is tried on at least
_LARGE = 10.0  # a change that makes an element the largest, say
_SPREAD = 3.0  # standard deviation of the numbers that an activation gets


def wrong(row: Rule, trial: Trial) -> str:
    """What a row says of a call that is not true; "" where all of it is."""
    checks: tuple[Callable[[Any, Trial], str], ...] = (_unsteady, *_CHECKS.get(type(row), ()))
    return next((found for check in checks if (found := check(row, trial))), "")


def _unsteady(row: Rule, trial: Trial) -> str:
    """The same for the same, in memory of its own where the schema says so."""
    given = trial.arguments(trial.numbers())
    found, again = trial.run(given), trial.run(given)
    if apart(found, again) > trial.tolerance:
        return "the operator gives another result each time"
    own = {value.untyped_storage().data_ptr() for value in given.values() if isinstance(value, Tensor)}
    if is_fresh(trial.node.operator) and any(v.numel() and v.untyped_storage().data_ptr() in own for v in found):
        return "the operator returns memory of its arguments, which its schema does not say; clone it"
    return ""


# Linear.


def _not_additive(row: Linear, trial: Trial) -> str:
    x, y = trial.numbers(), trial.numbers()
    both = {name: x[name] + y[name] for name in x}
    parts = [_homogeneous(row, trial, signals) for signals in (x, y, both)]
    share = apart([a + b for a, b in zip(*parts[:2], strict=True)], parts[2])
    if share > trial.tolerance:
        return told("homogeneous(x) + homogeneous(y) differs from homogeneous(x + y)", share)
    nothing = trial.results({name: torch.zeros_like(value) for name, value in x.items()})
    share = apart(trial.results(x), [a + b for a, b in zip(parts[0], nothing, strict=True)])
    return told("f(x) differs from homogeneous(x) + f(0)", share) if share > trial.tolerance else ""


def _weighs_otherwise(row: Linear, trial: Trial) -> str:
    """The weight multiplies; along its axis of output channels, it scales those, and the bias is added to them."""
    name = row.weighs(trial.call)
    if name is None:
        return ""
    x = trial.numbers()
    weight, plain = trial.arguments(x)[name], _homogeneous(row, trial, x)
    if not isinstance(weight, Tensor):
        return f"the weight {name} is no tensor"
    share = apart(_homogeneous(row, trial, x, **{name: 2 * weight}), [2 * value for value in plain])
    if share > trial.tolerance:
        return told(f"twice the weight {name} differs from twice the sum", share)
    if row.outputs is None or weight.shape[row.outputs[0]] != plain[0].shape[row.outputs[1]]:
        return ""  # the groups of a transposed convolution share their weights' axis, say
    scale = trial.positives(weight.shape[row.outputs[0]])
    scaled = _homogeneous(row, trial, x, **{name: weight * _along(scale, weight, row.outputs[0])})
    share = apart(scaled, [plain[0] * _along(scale, plain[0], row.outputs[1])])
    if share > trial.tolerance:
        return told(f"outputs={row.outputs}: a scale of the weight's channels differs from one of the result's", share)
    return _biased(row, trial, x, scale)


def _biased(row: Linear, trial: Trial, x: Mapping[str, Tensor], values: Tensor) -> str:
    assert row.outputs is not None
    if "bias" not in trial.node.arguments:
        return ""
    given = trial.arguments(x)
    with_bias, without = (trial.run({**given, "bias": bias}) for bias in (values, torch.zeros_like(values)))
    share = apart(with_bias, [without[0] + _along(values, without[0], row.outputs[1])])
    return told(f"outputs={row.outputs}: the bias is not added along that axis; it differs", share) * (
        share > trial.tolerance
    )


def _pads_otherwise(row: Linear, trial: Trial) -> str:
    name, x = row.pads, trial.numbers()
    given = trial.arguments(x)
    own = given.get(str(name))
    if name is None or not isinstance(own, list | tuple) or not all(isinstance(n, int) for n in own):
        return ""
    first = next(iter(given))
    around = [n for _ in own for n in (1, 1)]
    inside = _homogeneous(row, trial, x, **{name: [n + 1 for n in own]})
    share = apart(inside, _homogeneous(row, trial, x, **{first: functional.pad(given[first], around)}))
    return told(f"pads: zeros by {name} differ from zeros around the input", share) if share > trial.tolerance else ""


def _moves_otherwise(row: Linear, trial: Trial) -> str:
    """What comes out went in, or is 0."""
    if not row.moves:
        return ""
    x = trial.numbers()
    own = torch.cat([value.flatten() for value in x.values()])
    for value in _homogeneous(row, trial, x):
        share = float((~(torch.isin(value, own) | (value == 0))).double().mean()) if value.numel() else 0.0
        if share:
            return f"moves: {100 * share:.3g}% of the elements that come out are none that went in"
    return ""


def _adds_otherwise(row: Linear, trial: Trial) -> str:
    """Whole numbers stay whole."""
    if not row.adds:
        return ""
    x = {name: (_LARGE * value).round() for name, value in trial.numbers().items()}
    away = max(float((value - value.round()).abs().max()) for value in _homogeneous(row, trial, x))
    return f"adds: whole numbers become others, by up to {away:.3g}" if away > trial.tolerance else ""


def _sized_otherwise(row: Linear, trial: Trial) -> str:
    given = trial.arguments(trial.numbers())
    sizes = row.sizes(given) if row.sizes is not None else None
    found = tuple(trial.run(given)[0].shape)
    if sizes is None or tuple(sizes) == found:
        return ""
    return f"sizes says that the result has the shape {tuple(sizes)}; it has {found}"


def _homogeneous(row: Linear, trial: Trial, signals: Mapping[str, Tensor], **changed: Any) -> list[Tensor]:
    return trial.run(row.homogeneous(trial.call, {**trial.arguments(signals), **changed}))


def _along(values: Tensor, like: Tensor, axis: int) -> Tensor:
    shape = [1] * like.ndim
    shape[axis] = -1
    return values.view(shape)


# What reaches what.


def _reaches_further(row: Linear | Digital, trial: Trial) -> str:
    """A change of one element changes nothing that the row does not say it reaches."""
    if row.reach is None:
        return ""
    for ref in trial.signals:
        sizes = trial.call.graph.sizes(ref.name, IMAGES)
        try:
            boxes = _boxes(row, trial, ref)
        except Unknown:  # the report says why its connections are not known
            return ""
        for place in trial.places(sizes.numel()):
            position = tuple(int(at) for at in torch.unravel_index(torch.tensor(place), sizes))
            changes = _changes(row, trial, ref.name, position)
            said = [_any(piece, position, value) for piece, value in zip(boxes, changes, strict=False)]
            if [tuple(value.shape) for value in said] != [tuple(value.shape) for value in changes]:
                shapes = [tuple(value.shape) for value in said]
                return f"reach gives boxes of the shapes {shapes}; the result has {[tuple(v.shape) for v in changes]}"
            outside = sum(int((change & ~may).sum()) for change, may in zip(changes, said, strict=True))
            if outside:
                return f"reach leaves out {outside} of the elements that change with element {position} of {ref.name}"
            if isinstance(row, Linear) and row.moves:
                more = sum(int((may & ~change).sum()) for change, may in zip(changes, said, strict=True))
                if more:
                    return f"reach says of {more} elements that element {position} of {ref.name} is moved there"
    return ""


def _boxes(row: Linear | Digital, trial: Trial, ref: Ref) -> list[Any]:
    """The boxes of each result, from one signal."""
    sizes = trial.call.graph.sizes(ref.name, IMAGES)
    call = replace(trial.call, known={ref.name: (identity(sizes),)})
    assert row.reach is not None
    found: list[Any] = list(row.reach(call))
    return found if isinstance(row, Linear) and row.several else [found]


def _any(boxes: Any, position: tuple[int, ...], like: Tensor) -> Tensor:
    """What one element reaches by any of the boxes; of another shape than the result where one of them is."""
    tables = [reached(box, position) for box in boxes]
    odd = next((table for table in tables if table.shape != like.shape), None)
    return odd if odd is not None else torch.stack(tables).any(0) if tables else torch.zeros_like(like)


def _changes(row: Linear | Digital, trial: Trial, name: str, position: tuple[int, ...]) -> list[Tensor]:
    """Which elements of each result change with one of a signal."""
    before = trial.numbers()
    if isinstance(row, Linear):
        before = {one: torch.zeros_like(value) for one, value in before.items()}
    after = {**before, name: before[name].clone()}
    after[name][position] += 1 if isinstance(row, Linear) else _LARGE
    if isinstance(row, Digital):
        first, second = trial.results(before), trial.results(after)
    else:
        first, second = (_homogeneous(row, trial, signals) for signals in (before, after))
    return [_differs(a, b, trial.tolerance).cpu() for a, b in zip(first, second, strict=True)]


def _differs(a: Tensor, b: Tensor, tolerance: float) -> Tensor:
    away = (a.double() - b.double()).abs()
    return away > tolerance * away.max() if away.numel() else away > 0


def _mixes_images(row: Linear | Digital, trial: Trial) -> str:
    """Another image in the batch, or none, changes nothing."""
    x, other = trial.numbers(), trial.numbers()
    shapes = [trial.call.graph[ref.name].shape or () for ref in trial.signals]
    results = trial.results(x)
    shape = trial.node.shape
    wanted = [shape] if shape is not None and len(results) == 1 else [_with_batch(value) for value in results]
    if any(batch_axis(one) is None for one in (*shapes, *wanted)):
        return "the result has no axis for the images of a batch"
    parts = {ref.name: _image(x[ref.name], s, 0) for ref, s in zip(trial.signals, shapes, strict=True)}
    beside = {
        ref.name: torch.cat([_image(x[ref.name], s, 0), _image(other[ref.name], s, 1)], batch_axis(s))  # type: ignore[arg-type]
        for ref, s in zip(trial.signals, shapes, strict=True)
    }
    alone, first = trial.results(parts), [_image(value, s, 0) for value, s in zip(results, wanted, strict=True)]
    for found in (alone, [_image(value, s, 0) for value, s in zip(trial.results(beside), wanted, strict=True)]):
        share = apart(found, first)
        if share > trial.tolerance:
            return told("an image's result depends on the other images of its batch: it changes", share)
    return ""


def _with_batch(value: Tensor) -> tuple[Any, ...]:
    """The shape of one of several results, whose axis 0 is the batch."""
    return (Batch(len(value) // IMAGES), *value.shape[1:]) if value.ndim else ()


def _image(value: Tensor, shape: tuple[Any, ...], image: int) -> Tensor:
    """One image's part."""
    axis = batch_axis(shape)
    assert axis is not None
    return value.narrow(axis, image * shape[axis].times, shape[axis].times)


# Elementwise.


def _not_elementwise(row: Rule, trial: Trial) -> str:
    """One function of each element, whatever its place, its neighbours and the tensor's shape."""
    if trial.dtype != torch.float64:
        return "the operator does not take float64, in which neurons are fitted"
    x = trial.numbers(_SPREAD)
    (found,) = trial.results(x)
    if any(value.shape != found.shape for value in x.values()):
        return f"the result has the shape {tuple(found.shape)}"
    for place in trial.places(found.numel()):
        changed = {name: value.clone() for name, value in x.items()}
        for value in changed.values():
            value.view(-1)[place] += 1
        (other,) = trial.results(changed)
        unlike = _unlike(other, found, trial.tolerance).flatten()
        unlike[place] = False
        if others := int(unlike.sum()):
            return f"{others} elements change with another one (element {place})"
    order = trial.order(found.numel())
    mixed = {name: value.flatten()[order] for name, value in x.items()}
    share = apart(trial.results(mixed), [found.flatten()[order]])
    return told("elements in another order, in a row, give other results; they differ", share) * (
        share > trial.tolerance
    )


def _unlike(a: Tensor, b: Tensor, tolerance: float) -> Tensor:
    size = b[b.isfinite()].abs().max() if bool(b.isfinite().any()) else torch.ones(())
    return ~(((a - b).abs() <= tolerance * size) | (a == b) | (a.isnan() & b.isnan()))


def _imitates_another(row: Neurons, trial: Trial) -> str:
    activation = row.activation(trial.call)
    seen = 0
    while seen < _NUMBERS:
        x = trial.numbers(_SPREAD)
        (values,) = x.values()
        share = apart(trial.results(x), [activation(values)])
        if share > trial.tolerance:
            return told(f"the operator differs from {activation.label}", share)
        seen += max(values.numel(), 1)
    return ""


# Circuits and shapes.


def _expands_to_another(row: Circuit, trial: Trial) -> str:
    tensors = trial.constants
    made = Builder(trial.call.graph, tensors)
    instead = row.expand(trial.call, made)
    if instead is None:
        return ""
    x = trial.numbers()
    values: dict[str, Any] = dict(x)
    own = {node.name for node in made.nodes}
    others = {name for node in made.nodes for name in node.reads if name not in own and name not in x}
    if not others.isdisjoint(trial.call.carriers):
        return "what it expands to reads other signals than the call does"

    def value(ref: Ref) -> Any:
        return values[ref.name] if ref.name in values else trial.value(ref, x)

    for node in made.nodes:
        if node.operator == CONSTANT:
            values[node.name] = tensors[node.arguments["tensor"]]
            continue
        results = called(node.operator, {name: replaced(given, value) for name, given in node.arguments.items()})
        values[node.name] = results[0] if len(results) == 1 else results
    wanted = trial.results(x)
    found = [None if ref is None else value(ref) for ref in (instead if isinstance(instead, tuple) else (instead,))]
    pairs = [(a, b) for a, b in zip(found, wanted, strict=False) if a is not None]
    share = apart([a for a, _ in pairs], [b for _, b in pairs])
    return told("what it expands to differs from the operator", share) if share > trial.tolerance else ""


def _depends_on_values(row: Shapes, trial: Trial) -> str:
    found, again = (_tensors(trial.results(trial.numbers())) for _ in range(2))
    share = apart(found, again)
    if share:
        return told("the result depends on values, not on shapes alone; it changes", share)
    if row.fill is None:
        return ""
    share = apart(found, [torch.full_like(value, row.fill(trial.call)) for value in found])
    return told(f"the result is not {row.fill(trial.call)} everywhere; it differs", share) if share else ""


def _tensors(found: list[Any]) -> list[Tensor]:
    return [torch.as_tensor(value) for value in found]


_CHECKS: dict[type[Rule], tuple[Callable[[Any, Trial], str], ...]] = {
    Linear: (
        _not_additive,
        _weighs_otherwise,
        _pads_otherwise,
        _moves_otherwise,
        _adds_otherwise,
        _sized_otherwise,
        _mixes_images,
        _reaches_further,
    ),
    Neurons: (_not_elementwise, _imitates_another),
    Elementwise: (_not_elementwise,),
    Circuit: (_expands_to_another,),
    Digital: (_mixes_images, _reaches_further),
    Shapes: (_depends_on_values,),
}
