"""Where signals are: what carries values from neuron to neuron, and what is bookkeeping of whole numbers.

Floats that a network takes are a signal, and so is all that is computed from them. Whole numbers and truth values
(token ids, masks, positions) are not: what comparisons, sums and casts make of them is bookkeeping. A signal begins
where they look rows of a table up, or where what they have become meets weights. Whole numbers of which forward makes
nothing but weighted sums (bytes of pictures) are a signal as floats are.
"""

from collections.abc import Callable, Iterator

from fewspikes.graph.graph import INPUT, SITE, Graph, Node, Ref
from fewspikes.operators.call import Call
from fewspikes.operators.rule import Circuit, Linear, Lookup, Neurons, Rules, Shapes


def carriers(graph: Graph, rules: Rules) -> frozenset[str]:
    """The nodes that carry a signal."""
    depending = _depending(graph, rules)
    whole = {node.name for node in graph.of(INPUT) if node.is_whole}
    if not whole:
        return depending
    weighed = {name for node in graph for name in _weighed(node, graph, rules, depending)}
    bookkept = whole - _measured(graph, rules, depending, weighed)
    begins = {
        node.name
        for node in graph
        if node.name in depending - bookkept
        and (node.operator == INPUT or node.name in weighed or rules.find(Lookup, Call(node, graph, rules)) is not None)
    }
    return _following(graph, begins, lambda node: node.name in depending - bookkept)


def _depending(graph: Graph, rules: Rules) -> frozenset[str]:
    """The nodes whose values depend on the inputs' values."""
    inputs = {node.name for node in graph.of(INPUT)}
    return _following(graph, inputs, lambda node: not rules.has(Shapes, node.short))


def _following(graph: Graph, begins: set[str], passes: Callable[[Node], bool]) -> frozenset[str]:
    """The nodes that some of these lead to by nodes that pass it on; a state also follows what it will be."""
    found, before = set(begins), -1
    while before < len(found):
        before = len(found)
        for node in graph:
            reads = (*node.reads, graph.after(node.name))
            if not found.isdisjoint(reads) and passes(node):
                found.add(node.name)
    return frozenset(found)


def _weighed(node: Node, graph: Graph, rules: Rules, depending: frozenset[str]) -> Iterator[str]:
    """What a call multiplies by weights that are constant; of neurons, what they take in."""
    if node.operator == SITE:
        yield from node.reads
    for rule in rules.of(Linear, node.short):
        names = (next(iter(node.arguments)), rule.weight) if isinstance(rule.weight, str) else rule.weight or ()
        given = [ref for ref in (node.arguments[name] for name in names) if isinstance(ref, Ref)]
        signals = [ref.name for ref in given if ref.name in depending]
        if len(given) == 2 and len(signals) == 1:
            yield signals[0]


def _measured(graph: Graph, rules: Rules, depending: frozenset[str], weighed: set[str]) -> set[str]:
    """The inputs that weights or neurons take with nothing but sums and scales between, and nobody otherwise."""

    def is_linear(node: Node) -> bool:
        call = Call(node, graph, rules, depending)
        early = (row for row in rules.of(Circuit, node.short) if row.early)
        return rules.find(Linear, call) is not None or any(row.applies(call) for row in early)

    def is_active(node: Node) -> bool:
        return node.operator == SITE or rules.find(Neurons, Call(node, graph, rules, depending)) is not None

    active = {name for node in graph if is_active(node) for name in node.reads}
    waiting = [name for name in weighed | active if not graph[name].is_whole or graph[name].operator == INPUT]
    seen: set[str] = set()
    while waiting:
        node = graph[waiting.pop()]
        if node.name in depending and node.name not in seen:
            seen.add(node.name)
            if node.operator == "getitem" or is_linear(node):
                waiting.extend(node.reads)

    def is_summed(name: str) -> bool:
        users = [user for user in graph.users(name) if not rules.has(Shapes, user.short)]
        return all(is_active(user) or is_linear(user) for user in users)

    return {node.name for node in graph.of(INPUT) if node.name in seen and is_summed(node.name)}
