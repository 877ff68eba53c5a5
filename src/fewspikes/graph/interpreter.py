"""The one interpreter: it runs a graph, on whatever stands for its inputs and with whatever layers at its sites."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.moments import at_moment
from fewspikes.base.tensors import aligned
from fewspikes.graph.functions import function, in_order, parameters
from fewspikes.graph.graph import (
    CONSTANT,
    HISTORY,
    INPUT,
    LAST,
    NEXT,
    OUTPUT,
    SITE,
    STATE,
    STEP,
    Graph,
    Node,
    Ref,
    refs,
)
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

    def kept(self) -> "Step":
        """The same, leaving all values in their places."""
        return self._replace(done=())


class Loop(NamedTuple):
    """A loop over time made ready: the steps of one time step, and what passes into it, through it and out of it.

    Every value is told by its place.
    """

    node: str  # its name
    sequences: tuple[tuple[int, int, int, bool], ...]  # place, sequence, axis of time, whether time runs backwards
    states: tuple[tuple[int, int, int], ...]  # place, first value, and what it will be at the next time step
    steps: tuple[Step, ...]
    histories: tuple[tuple[int, int, int, bool], ...]  # place, node, axis of time, whether time runs backwards
    last: tuple[tuple[int, int], ...]  # place, node
    reads: tuple[int, ...]  # what it takes from outside
    done: tuple[int, ...]
    once: bool = False  # runs the first time step, and takes its values for those of all

    def kept(self) -> "Loop":
        """The first time step alone, whose values are left in their places."""
        return self._replace(steps=tuple(step.kept() for step in self.steps), done=(), once=True)

    def time_steps(self, values: Sequence[Any]) -> int:
        """How many time steps the sequences have.

        Raises:
            FewSpikesError: none, or different numbers.
        """
        lengths = {values[sequence].shape[axis] for _, sequence, axis, _ in self.sequences}
        if len(lengths) != 1 or lengths == {0}:
            told = " and ".join(map(str, sorted(lengths)))
            raise FewSpikesError(f"the loop {self.node} needs a sequence of one time step at least; got {told}")
        return int(lengths.pop())

    def run(self, values: list[Any], layers: Mapping[str, Callable[..., Any]], call: "Call | None" = None) -> None:
        """Run all time steps on `values`, in place; see `execute`."""
        count, kept = self.time_steps(values), [list[Any]() for _ in self.histories]
        dtype = values[self.sequences[0][1]].dtype
        for at, first, _ in self.states:
            values[at] = values[first].to(dtype)  # zeros are of the dtype that the model once had
        for time in range(1 if self.once else count):
            for at, sequence, axis, backwards in self.sequences:
                values[at] = values[sequence].select(axis, count - 1 - time if backwards else time)
            with at_moment(time=time):
                execute(self.steps, values, layers, call)
            for found, (_, at, _, _) in zip(kept, self.histories, strict=True):
                found.append(values[at])
            ending = [values[at] for _, at in self.last]
            passed = [values[at] for _, _, at in self.states]
            for (at, _, _), value in zip(self.states, passed, strict=True):
                values[at] = value
        for found, (at, _, axis, backwards) in zip(kept, self.histories, strict=True):
            found = found * count if self.once else found
            values[at] = torch.stack(found[::-1] if backwards else found, axis)
        for value, (at, _) in zip(ending, self.last, strict=True):
            values[at] = value
        for at in self.done:
            values[at] = None


class Program(NamedTuple):
    """A graph made ready to run. Place 0 of the values is the device."""

    size: int
    inputs: tuple[int, ...]
    constants: tuple[tuple[int, str], ...]  # place, and name of the tensor
    steps: tuple[Step | Loop, ...]
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
    last = {name: node for node in graph for name in node.reads}
    kept = {node.name for node in graph if node.operator in (CONSTANT, OUTPUT)} | set(graph.output.reads)
    steps: list[Step | Loop] = []
    for node in graph:
        if node.loop:
            nodes = graph.loops[node.loop].nodes
            if node is nodes[-1]:
                read = dict.fromkeys(name for one in nodes for name in one.reads if graph[name].loop != node.loop)
                done = [places[name] for name in read if last[name].loop == node.loop and name not in kept]
                steps.append(_loop(graph, node.loop, places, [places[name] for name in read], done))
        elif node.operator not in (INPUT, CONSTANT, OUTPUT, HISTORY, LAST):
            done = [places[name] for name in node.reads if last[name] is node and name not in kept]
            steps.append(ready_to_run(node, places, tuple(done)))
    return Program(
        len(places) + 1,
        tuple(places[node.name] for node in graph.of(INPUT)),
        tuple((places[node.name], node.arguments["tensor"]) for node in graph.of(CONSTANT)),
        tuple(steps),
        _pattern(graph.output.arguments["value"], places),
        places,
    )


def _loop(graph: Graph, name: str, places: Mapping[str, int], reads: Sequence[int], done: Sequence[int]) -> Loop:
    """A loop as one step; what its nodes give is free when it has run, but for what it hands out."""
    loop = graph.loops[name]
    own = {node.name for node in loop.nodes}
    outer = [node for node in graph if not node.loop and not own.isdisjoint(node.reads)]
    passing = {read for node in (*loop.of(NEXT), *outer) for read in node.reads}
    last = {read: node.name for node in loop.nodes for read in node.reads}
    steps = []
    for node in loop.nodes:
        if node.operator not in (STEP, STATE, NEXT):
            free = [read for read in node.reads if read in own - passing and last[read] == node.name]
            steps.append(ready_to_run(node, places, tuple(places[read] for read in free)))

    def place(node: Node, argument: str = "self") -> int:
        return places[node.arguments[argument].name]

    def along(node: Node) -> tuple[int, int, int, bool]:
        return places[node.name], place(node), node.arguments["dim"], node.arguments["reversed"]

    return Loop(
        name,
        tuple(along(node) for node in loop.of(STEP)),
        tuple((places[node.name], place(node, "initial"), places[loop.after[node.name]]) for node in loop.of(STATE)),
        tuple(steps),
        tuple(along(node) for node in outer if node.operator == HISTORY),
        tuple((places[node.name], place(node)) for node in outer if node.operator == LAST),
        tuple(reads),
        (*done, *(places[name] for name in own)),
    )


def execute(
    steps: Sequence[Step | Loop],
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
    function = call or (_plainly if torch.compiler.is_compiling() else result_of)
    for step in steps:
        if isinstance(step, Loop):
            step.run(values, layers, call)
            continue
        args, kwargs = list(step.args), step.kwargs
        for key, slot in step.slots:
            value = values[slot.at] if type(slot) is Place else filled(slot, values)
            if isinstance(key, str):
                kwargs = {**kwargs, key: value}
            else:
                args[key] = value
        if step.function is None:
            values[step.at] = layers[step.node](*args)
        else:
            values[step.at] = function(step, args, kwargs)
        for at in step.done:
            values[at] = None


def result_of(step: Step, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """What a step's function gives.

    Raises:
        FewSpikesError: it looks up what a table has not.
    """
    try:
        return _plainly(step, args, kwargs)
    except IndexError as error:  # torch's own
        raise FewSpikesError(_missing(step, [*args, *kwargs.values()], error)) from error


def _plainly(step: Step, args: list[Any], kwargs: dict[str, Any]) -> Any:
    assert step.function is not None
    return step.function(*args, **kwargs)


def _missing(step: Step, given: list[Any], error: IndexError) -> str:
    tensors = [value for value in given if isinstance(value, Tensor)]
    tables = [value for value in tensors if value.is_floating_point() and value.ndim == 2]
    numbers = [value for value in tensors if not value.is_floating_point()]
    if len(tables) == len(numbers) == 1:
        least, most, rows = int(numbers[0].min()), int(numbers[0].max()), len(tables[0])
        return (
            f"whole numbers from {least:,} to {most:,} look up rows of a table that has {rows:,} ({step.node}); give "
            f"numbers from 0 to {rows - 1:,}"
        )
    return (
        f"whole numbers look up what a table has not ({step.node}): {str(error).splitlines()[0]}; give numbers from 0 "
        "to below its length"
    )


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
        layers = dict(zip(self._sites, self.layers, strict=True))
        execute(program.steps, values, layers)
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


def ready_to_run(node: Node, places: Mapping[str, int], done: tuple[int, ...] = ()) -> Step:
    """A node as a step.

    Args:
        node: a call or a site.
        places: of all nodes' results.
        done: places that nobody reads after it.
    """
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
