"""A run of the tests reads nothing that the user or an earlier version of the sources has kept."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numba
import pytest

from fewspikes.fitting import cache

ROOT = Path(__file__).parent.parent


@pytest.fixture
def at_the_root(request):
    """The conftest.py at the root, as pytest has loaded it."""
    return request.config.pluginmanager.getplugin(str(ROOT / "conftest.py"))


@pytest.fixture
def sources(tmp_path):
    """A copy of the sources, to edit."""
    return Path(shutil.copytree(ROOT / "src" / "fewspikes", tmp_path / "fewspikes"))


def test_a_run_keeps_its_fits_in_a_temporary_folder():
    assert Path(os.environ["FEWSPIKES_CACHE"]).parent == Path(tempfile.gettempdir())
    assert cache._folder() == Path(os.environ["FEWSPIKES_CACHE"]) / "fits"


def test_numba_keeps_its_code_in_the_folder_of_these_very_sources(at_the_root):
    assert str(at_the_root.compiled_code_folder(ROOT / "src" / "fewspikes")) == numba.config.CACHE_DIR


def test_a_command_that_a_test_starts_inherits_both():
    code = "import numba, os; print(numba.config.CACHE_DIR, os.environ['FEWSPIKES_CACHE'])"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.split() == [numba.config.CACHE_DIR, os.environ["FEWSPIKES_CACHE"]]


# problem.py is not compiled itself: it holds the type that the compiled functions take.
@pytest.mark.parametrize("name", ["staircase", "descent", "grids", "problem"])
def test_an_edit_of_what_is_compiled_compiles_anew(at_the_root, sources, name):
    before = at_the_root.compiled_code_folder(sources)
    assert at_the_root.compiled_code_folder(sources) == before
    with (sources / "fitting" / f"{name}.py").open("a") as file:
        file.write("\n")
    assert at_the_root.compiled_code_folder(sources) != before


def test_an_edit_of_what_is_not_compiled_keeps_the_code(at_the_root, sources):
    before = at_the_root.compiled_code_folder(sources)
    with (sources / "cli" / "main.py").open("a") as file:
        file.write("\n")
    assert at_the_root.compiled_code_folder(sources) == before


def test_every_kernel_counts_as_compiled(at_the_root):
    found = {file.stem for file in at_the_root.compiled_sources(ROOT / "src" / "fewspikes")}
    assert {"compiled", "threads", "staircase", "descent", "grids", "problem"} <= found
