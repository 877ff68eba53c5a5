"""Nodes as plain JSON data, and back. Nothing that is read is looked up by more than its name."""

import re
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import torch

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.functions import named, parameters
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
)
from fewspikes.graph.loops import check_loops
from fewspikes.graph.nested import RECORD, TUPLE, Held

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OUTSIDE = ("nan", "inf", "-inf")  # floats that JSON has no word for
_ALONG = {"self": Ref, "dim": int, "reversed": bool}
_OWN: dict[str, dict[str, type[Any]]] = {  # what is no operator, and its arguments
    INPUT: {},
    CONSTANT: {"tensor": str},
    SITE: {"input": Ref},
    OUTPUT: {"value": object},
    STEP: _ALONG,
    STATE: {"initial": Ref},
    NEXT: {"state": Ref, "self": Ref},
    HISTORY: _ALONG,
    LAST: {"self": Ref},
}


def graph_to_json(graph: Graph) -> list[dict[str, Any]]:
    """A list of plain dicts; arguments at their defaults, and shapes, are left out."""
    return [_node_to_json(node) for node in graph]


def graph_from_json(content: Sequence[Mapping[str, Any]], allowed: Callable[[str], bool]) -> Graph:
    """The reverse of `graph_to_json`.

    Args:
        content: as it was read.
        allowed: whether a graph may hold an operator of this name.

    Raises:
        FewSpikesError: an operator that is not allowed, a node out of order, or anything malformed.
    """
    nodes: dict[str, Node] = {}
    for entry in content:
        name, operator = str(entry["name"]), str(entry["operator"])
        if not _NAME.fullmatch(name) or name in nodes:
            raise FewSpikesError(f"{said(name)} is no name for a node")
        if nodes and next(reversed(nodes.values())).operator == OUTPUT:
            raise FewSpikesError("the graph does not end in its output")
        given = {str(key): _decode(value, nodes) for key, value in entry["arguments"].items()}
        part, loop = str(entry.get("part", "")), str(entry.get("loop", ""))
        if loop and not _NAME.fullmatch(loop):
            raise FewSpikesError(f"{said(loop)} is no name for a loop")
        nodes[name] = Node(name, operator, _checked(operator, given, allowed), str(entry["path"]), part=part, loop=loop)
    if not nodes or next(reversed(nodes.values())).operator != OUTPUT:
        raise FewSpikesError("the graph does not end in its output")
    graph = Graph(tuple(nodes.values()))
    check_loops(graph)
    return graph


def _checked(operator: str, given: dict[str, Any], allowed: Callable[[str], bool]) -> dict[str, Any]:
    if operator not in _OWN:
        if not allowed(operator):
            raise FewSpikesError(f"operator {said(operator)} is none that this library converts")
        return named(operator, (), given)
    if set(given) != set(_OWN[operator]):
        raise FewSpikesError(f"a node {operator!r} with the arguments {said(list(given))}")
    wrong = next((name for name, kind in _OWN[operator].items() if not _is_a(kind, given[name])), None)
    if wrong is not None:
        kind = _OWN[operator][wrong].__name__
        raise FewSpikesError(f"a node {operator!r} whose argument is no {kind}, but {said(given[wrong])}")
    return given


def _is_a(kind: type[Any], value: Any) -> bool:
    return isinstance(value, kind) and (kind is not int or type(value) is int)


def _node_to_json(node: Node) -> dict[str, Any]:
    kept = dict(node.arguments)
    if node.operator not in _OWN:
        for p in parameters(node.operator):
            usual = type(kept[p.name]) is type(p.default) and kept[p.name] == p.default
            if p.has_default and (usual or isinstance(kept[p.name], torch.device)):  # it computes where it is
                del kept[p.name]
    arguments = {key: _encode(value) for key, value in kept.items()}
    made = {"name": node.name, "operator": node.operator, "arguments": arguments, "path": node.path}
    return made | {key: word for key, word in (("part", node.part), ("loop", node.loop)) if word}


def _encode(value: Any) -> Any:
    """Arguments as JSON; what JSON has no word for becomes an object with one key that says what it is."""
    if isinstance(value, Ref):
        return {"node": value.name}
    if isinstance(value, float) and not isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Held):
        pairs = zip(value.fields, value.values, strict=True)
        return {value.kind: [value.name, [[field, _encode(item)] for field, item in pairs]]}
    if isinstance(value, tuple):
        return {"tuple": [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {"dict": {key: _encode(item) for key, item in value.items()}}
        return {"items": [[_encode(key), _encode(item)] for key, item in value.items()]}
    for kind in (torch.dtype, torch.layout, torch.memory_format):
        if isinstance(value, kind):
            return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return None  # a network computes where it is
    raise FewSpikesError(f"cannot save the argument {said(value)} of a {type(value).__name__}")


def _decode(value: Any, nodes: Mapping[str, Node]) -> Any:
    if isinstance(value, list):
        return [_decode(item, nodes) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise FewSpikesError(f"unknown argument {value!r:.80}")
    ((kind, content),) = value.items()
    if kind == "node" and content in nodes:
        return Ref(content)
    if kind == "float" and content in _OUTSIDE:
        return float(content)
    if kind == "tuple":
        return tuple(_decode(item, nodes) for item in content)
    if kind == "dict":
        return {str(key): _decode(item, nodes) for key, item in content.items()}
    if kind == "items":
        return {_key(key): _decode(item, nodes) for key, item in content}
    if kind in (TUPLE, RECORD):
        name, pairs = content
        values = tuple(_decode(item, nodes) for _, item in pairs)
        return Held(kind, str(name), tuple(str(field) for field, _ in pairs), values)
    found = getattr(torch, str(content), None) if kind == "torch" else None
    if not isinstance(found, torch.dtype | torch.layout | torch.memory_format):
        raise FewSpikesError(f"unknown argument {value!r:.80}")
    return found


def _key(value: Any) -> Any:
    """The key of a dict, from JSON."""
    found = _decode(value, {})
    if found is None or isinstance(found, bool | int | float | str):
        return found
    raise FewSpikesError(f"{value!r} is no key of a dict")
