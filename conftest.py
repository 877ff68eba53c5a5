"""What several test files need. jaxtyping's shapes are checked while the tests run."""

import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook(["fewspikes.neuron", "fewspikes.kernels"], "beartype.beartype")

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
