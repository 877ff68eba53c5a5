"""What several test files need; and a run of its own: it reads no fit and no compiled code that the user has kept.

jaxtyping's shapes are checked while the tests run.
"""

import ast
import getpass
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from jaxtyping import install_import_hook

SOURCE = Path(__file__).parent / "src" / "fewspikes"


def compiled_sources(source: Path) -> list[Path]:
    """The files below `source` that numba compiles, and all that they import from there: constants are compiled in."""
    wanted = [file for file in sorted(source.rglob("*.py")) if "numba" in file.read_text()]
    for file in wanted:  # which grows on the way
        for name in _imported(file):
            found = source.parent / Path(*name.split("."))
            wanted += [f for f in (found.with_suffix(".py"), found / "__init__.py") if f.is_file() and f not in wanted]
    return sorted(wanted)


def _imported(file: Path) -> Iterator[str]:
    """Names of modules, or of what is in them, that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def compiled_code_folder(source: Path) -> Path:
    """Where a run keeps what numba compiles: quick with the same sources again, a new folder after any edit.

    numba itself looks at the file of the outermost function only, so after an edit of an inner one elsewhere the old
    machine code would answer.
    """
    digest = hashlib.sha256(str(source).encode())
    for file in compiled_sources(source):
        digest.update(file.read_bytes())
    return Path(tempfile.gettempdir()) / f"fewspikes-{getpass.getuser()}-numba-{digest.hexdigest()[:16]}"


if "PYTEST_XDIST_WORKER" not in os.environ:  # workers and commands that tests start inherit both
    _fits = tempfile.TemporaryDirectory(prefix="fewspikes-fits-")  # removed at the end
    os.environ["FEWSPIKES_CACHE"] = _fits.name
    _compiled = compiled_code_folder(SOURCE)
    _compiled.mkdir(mode=0o700, exist_ok=True)
    os.environ["NUMBA_CACHE_DIR"] = str(_compiled)

# What numba compiles stays as it is.
HOOKED = ("recurrence", "layer", "kernels.dispatch", "kernels.reference")
install_import_hook([f"fewspikes.neuron.{name}" for name in HOOKED], "beartype.beartype")
hypothesis.settings.register_profile("fewspikes", deadline=None)  # the first call compiles
hypothesis.settings.load_profile("fewspikes")

DATA = os.environ.get("FEWSPIKES_DATA")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data() -> Path:
    if not DATA or not Path(DATA).is_dir():
        pytest.skip("needs FEWSPIKES_DATA: the folder with cifar10/, weights/ and imagenet-sample/")
    return Path(DATA)


@pytest.fixture(autouse=True)
def examples_write_into_a_scratch_folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(tmp_path)
