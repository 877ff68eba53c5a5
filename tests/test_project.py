"""The project as a whole: light to import, README true, no room importing one above it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import fewspikes

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "fewspikes"
ORDER = [
    "base",
    "neuron",
    "fitting",
    "reach",
    "graph",
    "operators",
    "network",
    "hardware",
    "measure",
    "images",
    "models",
    "conversion",
    "bench",
    "paper",
    "cli",
]


def test_importing_loads_no_extra_and_touches_no_gpu():
    extras = {"torchvision", "timm", "datasets", "pyarrow", "skimage", "sklearn", "matplotlib", "rich"}
    code = (
        f"import sys, fewspikes, torch; loaded = {extras} & set(sys.modules); "
        "assert not loaded, loaded; assert not torch.cuda.is_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there_and_documented():
    for name in fewspikes.__all__:
        assert getattr(fewspikes, name).__doc__, name


def test_rooms_import_only_rooms_above_them():
    for file in SOURCE.rglob("*.py"):
        room = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fewspikes."):
                other = node.module.split(".")[1]
                assert ORDER.index(other) <= ORDER.index(room), f"{file.name} imports {node.module}"


def test_the_version_is_that_of_the_project_file():
    assert f'version = "{fewspikes.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_the_readme_has_the_two_commands_that_ci_runs():
    lines = (ROOT / "README.md").read_text().splitlines()
    commands = [line.strip() for line in lines if line.startswith("    pip install")]
    assert commands == [
        'pip install ".[demo]" && fewspikes demo',
        'pip install -e ".[test]" && pytest -n 2 --dist loadfile',
    ]


def test_the_readmes_table_holds_the_measured_numbers():
    rows = json.loads((ROOT / "docs" / "results" / "accuracy.json").read_text())["rows"]
    rows = [row for row in rows if row["seed"] == 0]
    table = [line for line in (ROOT / "README.md").read_text().splitlines() if "→" in line and line.startswith("|")][1:]
    assert len(table) == len(rows)
    for line, row in zip(table, rows, strict=True):
        assert f"{row['ann_top1']:.2f} → {row['snn_top1']:.2f} | {row['agreement']:.2f}%" in line
        assert f"| {row['spikes_per_neuron']:.2f} | {row['latency_steps']} |" in line
