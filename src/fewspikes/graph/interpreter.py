"""The one interpreter: it runs a graph, on whatever stands for its inputs and with whatever layers at its sites."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fewspikes.base.tensors import aligned
from fewspikes.graph.functions import function, in_order, parameters
from fewspikes.graph.graph import CONSTANT, INPUT, OUTPUT, SITE, Graph, Node, Ref, refs
from fewspikes.graph.nested import Held, alike, parts

Call = Callable[["Step", list[Any], dict[str, Any]], Any]


class Place(NamedTuple):
    """Where among the values an argument is found."""

    at: int


class Step(NamedTuple):
    """A node made ready: its function, its arguments, and where its result goes.

    `function` is None for a site, whose layer is found under the node's name. `slots` are the arguments that are
    results of other steps, by position (or name); one that is a list or a dict with results in it is a whole pattern.
    """

    node: str
    function: Callable[..., Any] | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    slots: tuple[tuple[int | str, Any], ...]
    at: int
    done: tuple[int, ...]  # places that nobody reads after this step


class Program(NamedTuple):
    """A graph made ready to run. Place 0 of the values is the device."""

    size: int
    inputs: tuple[int, ...]
    constants: tuple[tuple[int, str], ...]  # place, and name of the tensor
    steps: tuple[Step, ...]
    output: Any
    places: dict[str, int]

    def values(self, inputs: Sequence[Any], tensors: Callable[[str], Any]) -> list[Any]:
        """The values before the first step."""
        values: list[Any] = [None] * self.size
        values[0] = inputs[0].device if inputs else torch.device("cpu")
        for at, value in zip(self.inputs, inputs, strict=True):
            values[at] = value
        for at, name in self.constants:
            values[at] = tensors(name)
        return values


def lowered(graph: Graph) -> Program:
    """Make a graph ready to run."""
    places = {node.name: at for at, node in enumerate(graph, 1)}
    last = {name: node.name for node in graph for name in node.reads}
    kept = {node.name for node in graph if node.operator in (CONSTANT, OUTPUT)} | set(graph.output.reads)
    steps = []
    for node in graph:
        if node.operator not in (INPUT, CONSTANT, OUTPUT):
            done = [places[name] for name in node.reads if last[name] == node.name and name not in kept]
            steps.append(_step(node, places, tuple(done)))
    return Program(
        len(places) + 1,
        tuple(places[node.name] for node in graph.of(INPUT)),
        tuple((places[node.name], node.arguments["tensor"]) for node in graph.of(CONSTANT)),
        tuple(steps),
        _pattern(graph.output.arguments["value"], places),
        places,
    )


def execute(
    steps: Sequence[Step],
    values: list[Any],
    layers: Mapping[str, Callable[..., Any]],
    call: Call | None = None,
) -> None:
    """Run steps on `values`, in place.

    Args:
        steps: some of a program's, in order.
        values: see `Program.values`.
        layers: what runs at each site, by its node's name.
        call: what calls a step's function with its arguments; None: nobody in between.
    """
    for step in steps:
        args, kwargs = list(step.args), step.kwargs
        for key, slot in step.slots:
            value = values[slot.at] if type(slot) is Place else filled(slot, values)
            if isinstance(key, str):
                kwargs = {**kwargs, key: value}
            else:
                args[key] = value
        if step.function is None:
            values[step.at] = layers[step.node](*args)
        elif call is None:
            values[step.at] = step.function(*args, **kwargs)
        else:
            values[step.at] = call(step, args, kwargs)
        for at in step.done:
            values[at] = None


def filled(pattern: Any, values: Sequence[Any]) -> Any:
    """A pattern with its places filled."""
    if type(pattern) is Place:
        return values[pattern.at]
    held = parts(pattern)
    if held is None:
        return pattern
    items = [filled(item, values) for item in held]
    return pattern.made(items) if isinstance(pattern, Held) else alike(pattern, items)


class Running(nn.Module):
    """A graph as a module: called with the graph's inputs, it returns its output.

    Args:
        graph: what runs.
        tensors: its constants by name; they ask for no gradient.
        layers: what runs at each site, by its node's name; called with the gate inputs.

    Attributes:
        layers: modules in the order of the sites.
    """

    def __init__(self, graph: Graph, tensors: Mapping[str, Tensor], layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.graph = graph
        self._program: Program | None = lowered(graph)
        self.constants = nn.Module()
        for name, tensor in tensors.items():
            _attach(self.constants, name, tensor)
        self._found = {name: _owner(self.constants, name) for name in tensors}
        self._inputs = tuple(node.name for node in graph.of(INPUT))
        self._sites = tuple(node.name for node in graph.of(SITE))
        self.layers = nn.ModuleList(layers[name] for name in self._sites)

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """The graph's output for inputs in its order, or by the names of their nodes."""
        given = [*inputs, *(named[name] for name in self._inputs[len(inputs) :])] if named else inputs
        program = self.program
        values = program.values(given, self._tensor)
        execute(program.steps, values, dict(zip(self._sites, self.layers, strict=True)))
        return filled(program.output, values)

    @property
    def program(self) -> Program:
        """The graph made ready to run."""
        if self._program is None:
            self._program = lowered(self.graph)
        return self._program

    def __getstate__(self) -> dict[str, Any]:
        """What pickle takes: torch's operators are not for it, and are found again by their names."""
        return {**self.__dict__, "_program": None}

    def _tensor(self, name: str) -> Tensor:
        owner, attribute = self._found[name]
        found: Tensor = getattr(owner, attribute)
        return found

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The constants by name."""
        return {name: self._tensor(name).detach() for name in self._found}


def _attach(root: nn.Module, name: str, tensor: Tensor) -> None:
    """Register a tensor below `root` by its dotted name; where it lies in memory must not change any product."""
    tensor = aligned(tensor)
    *folders, last = name.split(".")
    for folder in folders:
        if folder not in root._modules:
            root.add_module(folder, nn.Module())
        root = root.get_submodule(folder)
    if tensor.is_floating_point():
        root.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
    else:
        root.register_buffer(last, tensor)


def _owner(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    return root.get_submodule(path), attribute


def _step(node: Node, places: Mapping[str, int], done: tuple[int, ...]) -> Step:
    if node.operator == SITE:
        taken_in = tuple(Place(places[ref.name]) for ref in node.arguments.values())
        return Step(node.name, None, (None,) * len(taken_in), {}, tuple(enumerate(taken_in)), places[node.name], done)
    named = dict(node.arguments)
    if any(p.name == "device" for p in parameters(node.operator)):
        named["device"] = Place(0)  # wherever the network is now
    args, kwargs = in_order(node.operator, named)
    slots: list[tuple[int | str, Any]] = []
    given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for key, value in given:
        if type(value) is Place or next(refs(value), None) is not None:
            slots.append((key, value if type(value) is Place else _pattern(value, places)))
    taken = {key for key, _ in slots}
    plain = tuple(None if i in taken else value for i, value in enumerate(args))
    by_name = {key: value for key, value in kwargs.items() if key not in taken}
    return Step(node.name, function(node.operator), plain, by_name, tuple(slots), places[node.name], done)


def _pattern(value: Any, places: Mapping[str, int]) -> Any:
    if isinstance(value, Ref):
        return Place(places[value.name])
    held = parts(value)
    return value if held is None else alike(value, [_pattern(item, places) for item in held])
