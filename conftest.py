"""What several test files need. jaxtyping's shapes are checked while the tests run."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch
from jaxtyping import install_import_hook

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
