"""Photographs on disk in both layouts, networks to find a budget for, one thread; and none too many in workers."""

import pytest
import torch

from budget_problems import branched, in_a_row
from fewspikes.base.errors import FewSpikesError
from fewspikes.models.photographs import photographs
from images import png


def pytest_configure(config):
    if hasattr(config, "workerinput"):  # one of several at once: each thread more would only wait for the others
        torch.set_num_threads(1)


@pytest.fixture(scope="module")
def photos():
    try:
        return photographs()
    except FewSpikesError as error:
        pytest.skip(str(error))


@pytest.fixture
def save(photos, tmp_path):
    """Save a small copy of a photograph as a PNG file below the test's folder."""

    def save(place, photo="chelsea"):
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        photos[photo].resize((32, 24)).save(file)
        return file

    return save


@pytest.fixture
def write_parquet(photos, tmp_path):
    """Write photographs as a Parquet file of the Hugging Face layout, by pyarrow."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    def write(name, labels, image="img", label="label", contents=None, **options):
        contents = contents or [png(list(photos.values())[i % len(photos)]) for i in range(len(labels))]
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"bytes": content, "path": None} for content in contents]
        images = pyarrow.array(rows, pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))
        columns = {image: images, label: pyarrow.array(labels, pyarrow.int64())} if label else {image: images}
        parquet.write_table(pyarrow.table(columns), file, **options)
        return file

    return write


@pytest.fixture(scope="module")
def problem():
    return branched()


@pytest.fixture(scope="module")
def chain():
    return in_a_row()


@pytest.fixture
def one_thread():
    """So that the tests take the same time beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Empty caches, and a network on which every server refuses."""
    hub_client = pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(hub_client.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub_client.constants, "ENDPOINT", "http://127.0.0.1:9")
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    return tmp_path / "hub"
