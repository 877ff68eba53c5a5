"""The project as a whole: light to import, documents true, rooms in order, files and functions short."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import fewspikes

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
from from_code import FACE, documents, floor, imports, modules, room_of, rooms  # noqa: E402

ORDER = [
    "base",
    "neuron",
    "fitting",
    "reach",
    "graph",
    "operators",
    "rules",
    "network",
    "measure",
    "hardware",
    "simulation",
    "images",
    "texts",
    "models",
    "conversion",
    FACE,
    "bench",
    "paper",
    "cli",
]
MOST_FLOORS = 12
LONGEST_FILE, LONGEST_BODY = 400, 70  # lines
NAMED_AS_THEIR_FUNCTION = {  # to be renamed
    "fewspikes.bench.conditions",
    "fewspikes.models.fetching",
    "fewspikes.models.photographs",
    "fewspikes.paper.claims",
    "fewspikes.paper.reproduce",
}


# The code.


def test_importing_loads_no_extra_and_no_compiler_and_touches_no_gpu():
    heavy = {"torchvision", "timm", "datasets", "pyarrow", "skimage", "sklearn", "matplotlib", "rich", "typer"}
    heavy |= {"torch._dynamo", "sympy"}
    code = (
        f"import sys, fewspikes, torch; loaded = {heavy} & set(sys.modules); "
        "assert not loaded, loaded; assert not torch.cuda.is_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_compiled_code_needs_nothing_that_is_no_dependency():
    # numba's own products of vectors and matrices, and its linear algebra, are scipy's.
    for path in Path(fewspikes.__file__).parent.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and any(
                re.search("jit|compile|inline", ast.unparse(d)) for d in function.decorator_list
            ):
                text = ast.unparse(function)
                assert not re.search(r"np\.(dot|vdot|inner|linalg)|numpy\.linalg", text), (path.name, function.name)
                assert not any(isinstance(node, ast.MatMult) for node in ast.walk(function)), (path.name, function.name)


def test_every_public_name_is_there_and_documented():
    for name in fewspikes.__all__:
        assert getattr(fewspikes, name).__doc__, name


def test_rooms_import_only_rooms_before_them():
    assert sorted(ORDER) == sorted(rooms())
    for module in modules():
        if module != "fewspikes.__main__":
            for other in imports(module):
                assert ORDER.index(room_of(other)) <= ORDER.index(room_of(module)), f"{module} imports {other}"


def test_rooms_stand_on_few_floors():
    assert max(floor(room, rooms()) for room in rooms()) <= MOST_FLOORS


def test_no_files_import_each_other_in_a_circle():
    TopologicalSorter({module: imports(module) for module in modules()}).prepare()  # raises, naming the circle


def test_no_file_is_long():
    lines = {module: len(file.read_text().splitlines()) for module, file in modules().items()}
    assert {module: n for module, n in lines.items() if n > LONGEST_FILE} == {}


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for module, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield module, node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Without signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_no_function_is_long():
    long = [f"{module}.{node.name}: {n}" for module, node in functions() if (n := body_lines(node)) > LONGEST_BODY]
    assert long == []


def test_no_module_has_the_name_of_a_function_in_it():
    # Once the package hands the function out, the module cannot be reached by its name. The CLI's are named as typed.
    found = {
        module
        for module, file in modules().items()
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == file.stem and room_of(module) != "cli"
    }
    assert found <= NAMED_AS_THEIR_FUNCTION


# The documents.


def test_the_version_is_that_of_the_project_file():
    assert f'version = "{fewspikes.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_the_readme_has_the_two_commands_that_ci_runs():
    lines = (ROOT / "README.md").read_text().splitlines()
    commands = [line.strip() for line in lines if line.startswith("    pip install")]
    assert commands == [
        'pip install ".[demo]" && fewspikes demo',
        'pip install -e ".[test]" && pytest -n 2 --dist worksteal',
    ]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/operators.md"])
def test_what_documents_say_of_rooms_and_operators_is_what_the_code_says(name):
    assert (ROOT / name).read_text() == documents()[ROOT / name], "run python docs/from_code.py"


def measured() -> list[dict]:
    rows = json.loads((ROOT / "docs" / "results" / "accuracy.json").read_text())["rows"]
    return [row for row in rows if row["seed"] == 0]


def table(document: str) -> list[str]:
    """The lines of the table of accuracies in a document."""
    part = (ROOT / document).read_text().partition("<!-- accuracy: begin -->")[2].partition("<!-- accuracy: end -->")[0]
    return part.strip().splitlines()[2:]


def holds(line: str, row: dict) -> bool:
    ks = sorted({min(row["k_by_site"]), max(row["k_by_site"])})
    cells = [
        row["model"],
        f"{row['images']:,} {row['data']}",
        row["setting"],
        "–".join(map(str, ks)),
        f"{row['ann_top1']:.2f} → {row['snn_top1']:.2f}",
        f"{row['agreement']:.2f}%",
        f"{row['spikes_per_neuron']:.2f}",
        str(row["latency_steps"]),
    ]
    return [cell.strip() for cell in line.strip("|").split("|")] == cells


def test_the_table_of_the_results_holds_all_measured_rows():
    lines = table("docs/results/README.md")
    assert len(lines) == len(measured())
    for line, row in zip(lines, measured(), strict=True):
        assert holds(line, row), (line, row["row"])


def test_the_readmes_table_is_five_measured_rows_the_papers_setting_first():
    lines = table("README.md")
    found = [next(row for row in measured() if holds(line, row)) for line in lines]
    assert len({row["row"] for row in found}) == 5
    assert found[0]["setting"] == "paper"
    assert found[1]["model"] == found[0]["model"]  # what is compared with it


def test_links_between_documents_lead_somewhere():
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in links(document.read_text()):
            file, _, heading = target.partition("#")
            linked = document.parent / file if file else document
            assert linked.exists(), f"{document.name} links to {target}"
            assert not heading or heading in headings(linked.read_text()), f"{document.name} links to {target}"


def links(text: str) -> list[str]:
    targets = (part.partition(")")[0] for part in text.split("](")[1:])
    return [target for target in targets if "://" not in target]


def headings(text: str) -> set[str]:
    """As GitHub names them."""
    lines = (line.lstrip("#").strip().lower() for line in text.splitlines() if line.startswith("#"))
    return {"".join(c for c in line if c.isalnum() or c in " -").replace(" ", "-") for line in lines}
