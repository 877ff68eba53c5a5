"""Write what the documents say of the code: the rooms and their order, the operators and what becomes of them.

Tests hold the documents to it, so after a new import between rooms or a new row of an operator run

    python docs/from_code.py
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from textwrap import fill

from fewspikes.base.files import write_aside
from fewspikes.operators.rule import (
    Bookkeeping,
    Circuit,
    Digital,
    Elementwise,
    Linear,
    Lookup,
    Neurons,
    Rule,
    Shapes,
    Written,
)
from fewspikes.operators.rules import RULES, listed

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "fewspikes"
FACE = "the face"  # fewspikes/__init__.py: the public names


def main() -> None:
    """Write all of it."""
    for file, text in documents().items():
        write_aside(file, text.encode())


def documents() -> dict[Path, str]:
    """Every document as it should be."""
    readme, contributing = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
    return {
        readme: with_part(readme.read_text(), "operators", short_list()),
        contributing: with_part(with_part(contributing.read_text(), "rooms", picture()), "recipe", recipe()),
        ROOT / "docs" / "operators.md": operators_page(),
    }


def with_part(text: str, name: str, part: str) -> str:
    """A document with the part between the marks of this name replaced."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the document needs the marks {begin.strip()} and {end}, each once")
    return text.partition(begin)[0] + begin + part + end + text.partition(end)[2]


# The rooms.


@cache
def modules() -> dict[str, Path]:
    """The files of the package by the name that they are imported by."""
    names = ((file, file.relative_to(SOURCE.parent).with_suffix("").parts) for file in sorted(SOURCE.rglob("*.py")))
    return {".".join(parts).removesuffix(".__init__"): file for file, parts in names}


def room_of(module: str) -> str:
    """The folder that a module is in."""
    return module.split(".")[1] if "." in module else FACE


def imports(module: str) -> frozenset[str]:
    """The modules of the package that a module imports; those that type checkers alone import are left out."""
    found = set[str]()
    for node in _run(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.partition(".")[0] == "fewspikes"}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "fewspikes":
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() else node.module for name in inner}
    return frozenset(found - {module})


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """A tree's nodes without what stands under `if TYPE_CHECKING`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield from _run(child)


@cache
def rooms() -> dict[str, frozenset[str]]:
    """Each room with the rooms that it imports, those that come first first."""
    found: dict[str, set[str]] = {}
    for module in modules():
        if module != "fewspikes.__main__":
            found.setdefault(room_of(module), set()).update(room_of(name) for name in imports(module))
    clean = {room: frozenset(others - {room}) for room, others in found.items()}
    return {room: clean[room] for room in sorted(clean, key=lambda room: (floor(room, clean), room))}


def floor(room: str, imported: Mapping[str, Iterable[str]], above: tuple[str, ...] = ()) -> int:
    """1 for what imports nothing, else one more than the highest floor of what it imports."""
    if room in above:
        raise ValueError(f"rooms import each other in a circle: {' -> '.join((*above, room))}")
    return 1 + max((floor(other, imported, (*above, room)) for other in imported[room]), default=0)


def picture() -> str:
    """The rooms from the ground up, what each is and imports, for CONTRIBUTING."""
    lines = ["```"]
    for room, others in rooms().items():
        module = "fewspikes" if room == FACE else f"fewspikes.{room}"
        docstring = ast.get_docstring(ast.parse(modules()[module].read_text()))
        lines.append(f"{floor(room, rooms()):2}  {room:<12}{(docstring or '').splitlines()[0]}")
        lines.append(f"{'':16}<- {' '.join(name for name in rooms() if name in others)}" if others else "")
    return "\n".join(line for line in lines if line) + "\n```\n"


# The operators.


def recipe() -> str:
    """The row of `roll`, and its case among the tests, for CONTRIBUTING."""
    text = modules()["fewspikes.operators.moving"].read_text()
    row = next(node for node in ast.parse(text).body if getattr(node, "name", "") == "rolled")
    assert isinstance(row, ast.FunctionDef)
    lines = text.splitlines()[row.decorator_list[0].lineno - 1 : row.end_lineno]
    cases = (ROOT / "tests" / "linear_chains.py").read_text().splitlines()
    case = next(line.strip() for line in cases if line.strip().startswith('"roll":'))
    parts = ("```python", *lines, "```", "", *_BETWEEN.splitlines(), "", "```python", case, "```")
    return "\n".join(parts) + "\n"


def short_list() -> str:
    """The operators by what becomes of them, for the README."""
    lines = (f"- {word}: {', '.join(f'`{name}`' for name in names)}" for word, names in listed().items())
    return "".join(f"{fill(line, 120, subsequent_indent='  ', break_on_hyphens=False)}\n" for line in lines)


def operators_page() -> str:
    """The page with every row."""
    rows = sorted(RULES.rows, key=lambda row: list(_CLASSES).index(type(row)))
    lines = [_HEAD]
    for kind, (title, words) in _CLASSES.items():
        lines += [f"\n## {title}\n\n{fill(words, 120)}\n\n", *_table([row for row in rows if type(row) is kind])]
    return "".join(lines)


def _table(rows: Iterable[Rule]) -> Iterator[str]:
    cells = [(*_names(row), *_details(row), _about(row)) for row in rows]
    columns = _COLUMNS.get(len(cells[0]), ("operators", "what it is"))
    yield f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
    yield from (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in cells)


def _names(row: Rule) -> tuple[str]:
    return (", ".join(f"`{name}`" for name in row.operators),)


def _details(row: Rule) -> tuple[str, ...]:
    """What only some classes have."""
    if isinstance(row, Linear):
        weight = (row.weight,) if isinstance(row.weight, str) else row.weight or ()
        moved = "moves" if row.moves else ""
        left = [f"`{name}`" for name in row.without] + [f"`{name}` = 0" for name in row.zero]
        left += ["constant terms"] if row.terms else []
        return (" or ".join(f"`{name}`" for name in weight) or moved, ", ".join(left))
    if isinstance(row, Circuit):
        return (f"`circuits={{{row.kind!r}: {row.choice!r}}}`" if row.kind else "always",)
    return ()


def _about(row: Rule) -> str:
    """The first line of the docstring, or the reason."""
    if isinstance(row, Digital):
        return row.reason
    if isinstance(row, Written):
        return "Made of other operators; " + ("tables ship for it." if row.activation else "fitted to images.")
    function = getattr(row, _FUNCTIONS[type(row)]) if type(row) in _FUNCTIONS else row
    words = function.__doc__ or getattr(row, "note", "")
    if not words:
        raise ValueError(f"the row of {', '.join(row.operators)} needs a docstring")
    return str(words).strip().splitlines()[0]


_BETWEEN = """\
The function says which outputs each element of the input reaches (begin with `reach/__init__.py`); arguments go by
their names in torch's schema; `takes` leaves out the calls that the row is not true of (without axes, a roll goes
through all elements in a row), and those are refused by name. A linear map with weights is `@linear(..., weight=)`, a
rewrite into other operators `@circuit`, a named activation `@neurons`; an elementwise function of one signal needs no
row.

The test is a case in `tests/linear_chains.py`, a linear chain between two neurons:
"""
_FUNCTIONS: dict[type[Rule], str] = {Linear: "reach", Lookup: "reach", Neurons: "activation", Circuit: "expand"}
_COLUMNS = {
    3: ("operators", "when", "what it is"),
    4: ("operators", "weighs, or moves", "left out of the spikes' call", "what it is"),
}
_CLASSES: dict[type[Rule], tuple[str, str]] = {
    Linear: (
        "Weighted sums",
        "Linear maps between neurons: spikes pass through them. An argument that weighs is counted in multiply-adds; "
        'an operator that "moves" computes nothing. What is added to the sum (a bias, a constant term, a padding '
        "value) is left out of the call that the spikes go through.",
    ),
    Neurons: (
        "Neurons",
        "Named activations. With their usual settings they have shipped tables and so convert without images.",
    ),
    Written: ("Neurons, written out", "Functions that are known by name where they stand as a formula."),
    Elementwise: (
        "Elementwise, without torch's mark",
        "Any elementwise function of one signal becomes neurons when images are given, and torch marks which operators "
        "are elementwise. It has no mark on these.",
    ),
    Circuit: ("Rewritten", "Into operators that have rows; always, or where `circuits=` says so."),
    Digital: ("Left digital", "By default; the report of each network names them with their places."),
    Lookup: (
        "Tables",
        "Rows of a constant that whole numbers pick. A signal begins here, analog as an input is; no multiply-adds.",
    ),
    Bookkeeping: (
        "Whole numbers and truth values",
        "Computed as they are from inputs that are no signal (token ids, masks, positions), as all elementwise "
        "operators are. Of a signal, these are refused or have another row.",
    ),
    Shapes: ("Sizes and constants", "They carry no value from neuron to neuron."),
}
_HEAD = """# Operators

What becomes of each operator of a captured network (`torch.export`, ATen). This page is written from the rows in
`src/fewspikes/operators/` by `python docs/from_code.py`. A network with an operator that is neither here nor
elementwise is refused, with the operator's name and its module's path.
"""


if __name__ == "__main__":
    main()
