"""Recordings in a folder: the same spikes as in memory, whole after a kill, and nothing else is read or overwritten."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import fewspikes as fs
from fewspikes.simulation import recording
from fewspikes.simulation.courses import course
from fewspikes.simulation.drawing import _density, draw_course, draw_raster


class Looped(nn.Module):
    """An LSTM's last output, and a layer of ReLU."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return torch.relu(self.head(self.lstm(x)[0][:, -1]))


def dense():
    torch.manual_seed(0)
    layers = (nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))
    return fs.convert(nn.Sequential(*layers).double().eval(), torch.zeros(1, 6).double(), K=5, alpha=4.0)


def looped():
    torch.manual_seed(0)
    x = torch.randn(32, 3, 4).double()
    return fs.convert(Looped().double().eval(), x[:1], x, K=5, effort="quick")


@pytest.fixture(scope="module")
def networks():
    return {"dense": (dense(), torch.rand(5, 6).double()), "looped": (looped(), torch.randn(3, 3, 4).double())}


@pytest.mark.parametrize("name", ["dense", "looped"])
@pytest.mark.parametrize("engine", ["steps", "pipeline", "events", fs.Pipeline(2)])
def test_a_folder_holds_the_spikes_that_memory_holds(networks, tmp_path, monkeypatch, name, engine):
    monkeypatch.setattr(recording, "_EVENTS", 7)  # many chunks
    snn, x = networks[name]
    known = fs.simulate(snn, x, engine)
    told = fs.simulate(snn, x, engine, fs.Recording(folder=tmp_path / "spikes"))
    found = fs.read_events(tmp_path / "spikes")
    assert found.complete
    assert found.chunks == -(-known.counts.total // 7)
    assert (found.engine, found.images, found.interval, found.answer) == (
        known.engine,
        len(x),
        known.interval,
        known.answer,
    )
    assert told.spikes == {}
    assert torch.equal(told.output, known.output)
    for site, spikes in known.spikes.items():
        assert torch.equal(found.spikes(site), spikes)


def test_an_event_says_image_step_layer_and_neuron(tmp_path):
    # Neuron 1 of the first layer takes in 5 = 4 + 1 from image 1: it fires at t = 0 and 2 of K = 3, in steps 1 and 3.
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).eval()
    nn.init.eye_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    snn = fs.convert(net, torch.zeros(1, 2), K=3, alpha=8.0)
    x = torch.tensor([[0.0, 0.0], [0.0, 5.0]])
    fs.simulate(snn, x, recording=fs.Recording(folder=tmp_path / "spikes"))
    found = fs.read_events(tmp_path / "spikes")
    (site,) = found.sites
    assert (site.name, site.K, site.times, site.shape) == ("1", 3, 1, (2,))
    assert torch.stack(found.events()).T.tolist() == [[1, 1, 0, 0, 0, 1], [1, 3, 0, 0, 2, 1]]
    assert [v.dtype for v in found.events()] == [torch.int32] * 5 + [torch.int64]


def test_in_a_loop_the_time_step_is_told(networks, tmp_path):
    snn, x = networks["looped"]
    trace = fs.simulate(snn, x, recording=fs.Recording(folder=tmp_path / "spikes"))
    events = fs.read_events(tmp_path / "spikes").events()
    assert sorted(set(events.time.tolist())) == [0, 1, 2]
    assert int(events.step.max()) == trace.answer


def test_sites_may_be_chosen_and_nothing_takes_memory(networks, tmp_path):
    snn, x = networks["dense"]
    wanted = fs.Recording(sites=("3",), limit=0, folder=tmp_path / "spikes")
    trace = fs.simulate(snn, x, recording=wanted)
    found = fs.read_events(tmp_path / "spikes")
    assert [site.name for site in found.sites] == ["3"]
    assert len(found.events().step) == trace.counts.by_site["3"]
    with pytest.raises(fs.FewSpikesError, match="there is no site '1' in this recording; there are 3"):
        found.spikes("1")


def test_the_files_are_json_and_safetensors(networks, tmp_path):
    snn, x = networks["dense"]
    fs.simulate(snn, x, recording=fs.Recording(folder=tmp_path / "spikes"))
    names = sorted(file.name for file in (tmp_path / "spikes").iterdir())
    assert names == ["events-000000.safetensors", "index.json"]
    index = json.loads((tmp_path / "spikes" / "index.json").read_text())
    assert index["versions"] == {"fewspikes": fs.__version__, "torch": torch.__version__}
    assert [site["K"] for site in index["sites"]] == [5, 5]


RECORD = """
import sys
import fewspikes as fs, torch
from fewspikes.simulation import recording
sys.path.insert(0, sys.argv[1])
from test_recording import dense

recording._EVENTS = 500
torch.manual_seed(1)
fs.simulate(dense(), torch.rand(100_000, 6).double(), "pipeline", fs.Recording(folder=sys.argv[2]))
"""


def test_a_killed_simulation_leaves_whole_chunks(tmp_path):
    folder = tmp_path / "spikes"
    with subprocess.Popen([sys.executable, "-c", RECORD, os.path.dirname(__file__), folder]) as process:
        end = time.monotonic() + 120
        while not (folder / "events-000009.safetensors").exists() and time.monotonic() < end:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    found = fs.read_events(folder)
    assert not found.complete
    assert found.chunks >= 10
    events = found.events()
    assert len(events.step) == 500 * found.chunks
    torch.manual_seed(1)
    whole = int(events.image.max()) - 20  # later ones may still have been in flight
    assert whole > 3
    known = fs.simulate(dense(), torch.rand(100_000, 6).double()[:whole])
    for site, spikes in known.spikes.items():
        with pytest.warns(fs.FewSpikesWarning, match="did not end: later images"):
            assert torch.equal(found.spikes(site)[:, :whole], spikes)


def test_an_interrupted_simulation_writes_what_it_has(networks, tmp_path, monkeypatch):
    snn, x = networks["dense"]
    add, calls = recording.Stream.add, []

    def interrupted(self, *given):
        if len(calls) == 8:
            raise KeyboardInterrupt
        calls.append(int(given[-1].sum()))
        add(self, *given)

    monkeypatch.setattr(recording.Stream, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fs.simulate(snn, x, recording=fs.Recording(folder=tmp_path / "spikes"))
    found = fs.read_events(tmp_path / "spikes")
    assert not found.complete
    assert len(found.events().step) == sum(calls) > 0


def test_nothing_is_overwritten(networks, tmp_path):
    snn, x = networks["dense"]
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(fs.FewSpikesError, match="is not empty; give a new folder, or empty it"):
        fs.Recording(folder=tmp_path)
    with pytest.raises(fs.FewSpikesError, match="is a file; give a folder"):
        fs.Recording(folder=tmp_path / "notes.txt")
    with pytest.raises(fs.FewSpikesError, match="does not exist; make it first"):
        fs.Recording(folder=tmp_path / "no" / "spikes")
    with pytest.raises(fs.FewSpikesError, match="notes.txt is a file; give another folder"):
        fs.Recording(folder=tmp_path / "notes.txt" / "spikes")
    settings = fs.Recording(folder=tmp_path / "spikes")
    fs.simulate(snn, x, recording=settings)
    with pytest.raises(fs.FewSpikesError, match="is not empty"):
        fs.simulate(snn, x, recording=settings)


def test_too_much_for_memory_names_the_bytes_and_the_folder(networks):
    snn, x = networks["dense"]
    # 8 + 7 neurons, K = 5, 5 images.
    with pytest.raises(fs.FewSpikesError, match=r"takes 375 bytes, the limit is 374; .*Recording\(folder=...\)"):
        fs.simulate(snn, x, recording=fs.Recording(limit=374))
    assert len(fs.simulate(snn, x, recording=fs.Recording(limit=375)).spikes) == 2


def test_settings_are_checked():
    for sites in ("relu", 3, (None,)):
        with pytest.raises(fs.FewSpikesError, match="sites must be names of sites"):
            fs.Recording(sites=sites)
    with pytest.raises(fs.FewSpikesError, match="limit must be a whole number"):
        fs.Recording(limit=1.5)
    with pytest.raises(fs.FewSpikesError, match="a path must be text"):
        fs.Recording(folder=3)


@pytest.fixture
def folder(networks, tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_EVENTS", 20)
    snn, x = networks["dense"]
    fs.simulate(snn, x, recording=fs.Recording(folder=tmp_path / "spikes"))
    return tmp_path / "spikes"


def test_what_is_no_recording_is_refused(tmp_path, folder):
    with pytest.raises(fs.FewSpikesError, match="no recording at"):
        fs.read_events(tmp_path)
    (folder / "index.json").write_text("{}")
    with pytest.raises(fs.FewSpikesError, match="has format None"):
        fs.read_events(folder)


@pytest.mark.parametrize("changed", [{"interval": 0}, {"versions": 3}, {"images": -1}, {"sites": [{"name": "0"}]}])
def test_an_index_that_cannot_be_is_refused(folder, changed):
    index = recording._RECORDING.read(folder / "index.json")
    recording._RECORDING.write(folder / "index.json", index | changed)
    with pytest.raises(fs.FewSpikesError, match=r"index\.json"):
        fs.read_events(folder)


def test_a_lost_chunk_is_noticed(folder):
    (folder / "events-000001.safetensors").unlink()
    with pytest.raises(fs.FewSpikesError, match="of its . chunks events-000001.safetensors is missing"):
        fs.read_events(folder)


def test_changed_or_pickled_chunks_are_refused(folder):
    chunk = folder / "events-000001.safetensors"
    arrays = load_file(chunk)
    found = fs.read_events(folder)
    save_file(arrays, chunk)
    with pytest.raises(fs.FewSpikesError, match="no chunk of a recording"):
        found.events()
    chunk.write_bytes(pickle.dumps(arrays))
    with pytest.raises(fs.FewSpikesError, match="is no complete chunk of a recording"):
        found.events()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("neuron", 8, "neuron"),
        ("image", -1, "image"),
        ("site", 2, "site"),
        ("time", 1, "time step"),
        ("t", 5, "step of the code"),
        ("step", 0, "step"),
    ],
)
def test_an_event_that_cannot_be_is_refused(folder, field, value, said):
    chunk = folder / "events-000000.safetensors"
    arrays = load_file(chunk)
    arrays[field][0] = value
    recording.write_tensors(chunk, recording._CHUNK, {"number": 0}, arrays)
    with pytest.raises(fs.FewSpikesError, match=f"a {said} that is not there"):
        fs.read_events(folder).events()


def test_the_course_of_a_neuron_is_that_of_the_simulation(networks):
    snn, x = networks["dense"]
    trace = fs.simulate(snn, x[:1])
    for neuron in range(7):
        found = course(snn, x[:1], "3", neuron)
        assert list(found.z) == trace.spikes["3"][:, 0, neuron].tolist()
        for now, after, h, fires in zip(found.v, found.v[1:], found.h, found.z, strict=False):
            assert after == now - h * fires
        assert [v >= T for v, T in zip(found.v, found.T, strict=True)] == list(found.z)
    most = int(trace.spikes["3"][:, 0].sum(0).max())
    assert sum(course(snn, x[:1], "3").z) == most
    with pytest.raises(fs.FewSpikesError, match="there is no site 'no'"):
        course(snn, x[:1], "no")
    with pytest.raises(fs.FewSpikesError, match="neuron must be a whole number from 0 to 6"):
        course(snn, x[:1], "3", 7)
    with pytest.raises(fs.FewSpikesError, match="for one image; got 5"):
        course(snn, x, "3")
    with pytest.raises(fs.FewSpikesError, match="the course of a neuron takes a network without faults"):
        course(fs.perturb(snn, threshold_noise=0.5), x[:1], "3")


@pytest.mark.parametrize("engine", [fs.Pipeline(1), fs.Pipeline(2), fs.Pipeline(1, interval=13)])
def test_a_pipeline_tells_what_all_images_in_flight_fire(networks, engine):
    snn, x = networks["dense"]
    trace = fs.simulate(snn, x, engine)
    for site in trace.per_step:
        wanted = torch.zeros(trace.answer + trace.interval * 4, dtype=torch.int64)
        for n in range(5):
            begin = n * trace.interval
            wanted[begin : begin + trace.answer] += fs.simulate(snn, x[n : n + 1]).per_step[site]
        assert torch.equal(trace.together[site], wanted)


def test_a_raster_shows_the_share_of_the_neurons_that_fire(networks):
    snn, x = networks["dense"]
    trace = fs.simulate(snn, x)
    shares = _density(trace, ["1", "3"])
    assert shares.isnan().tolist() == [[False] * 5 + [True] * 5, [True] * 5 + [False] * 5]
    assert torch.equal(shares[0, :5], trace.spikes["1"].double().mean((1, 2)))
    assert torch.equal(shares[1, 5:], trace.spikes["3"].double().mean((1, 2)))
    (alone,) = _density(fs.simulate(snn, x, fs.Pipeline(1, interval=20)), ["1"])  # one image at a time
    for n in range(5):
        assert torch.equal(alone[20 * n : 20 * n + 5], trace.spikes["1"][:, n].double().mean(1))


def test_a_raster_is_white_between_the_time_steps_of_a_loop(networks):
    snn, x = networks["looped"]
    for engine in ("steps", fs.Pipeline(interval=1000)):  # one image at a time
        trace = fs.simulate(snn, x, engine)
        for name, starts in trace.starts.items():
            (share,) = _density(trace, [name])
            at_work = (~share.isnan()).nonzero().flatten().tolist()
            images = 1 if engine == "steps" else len(x)
            assert at_work == [
                1000 * n + start + t for n in range(images) for start in sorted(starts) for t in range(5)
            ]
    assert any(len(starts) == 3 for starts in trace.starts.values())


def test_one_layer_shows_a_dot_for_each_spike_of_the_first_image(networks, monkeypatch, tmp_path):
    snn, x = networks["dense"]
    drawn = []
    monkeypatch.setattr("fewspikes.simulation.drawing.write_picture", lambda figure, path: drawn.append(figure))
    trace = fs.simulate(snn, x)
    draw_raster(trace, tmp_path / "a.png", ["3"])
    dots = {(int(x), int(y)) for line in drawn[0].axes[0].lines for x, y in zip(*line.get_data(), strict=True)}
    t, neuron = trace.spikes["3"][:, 0].nonzero(as_tuple=True)
    assert dots == set(zip((t + 6).tolist(), neuron.tolist(), strict=True))
    draw_raster(trace, tmp_path / "a.png", ["3", "1"])
    assert [label.get_text() for label in drawn[1].axes[0].get_yticklabels()] == ["1", "3"]  # in the order of time


def test_a_long_pipeline_says_how_much_of_it_is_shown(networks, monkeypatch, tmp_path):
    snn, x = networks["dense"]
    drawn = []
    monkeypatch.setattr("fewspikes.simulation.drawing.write_picture", lambda figure, path: drawn.append(figure))
    draw_raster(fs.simulate(snn, x, fs.Pipeline(interval=400)), tmp_path / "a.png")
    assert "steps 1 to 1000 of 1610" in drawn[0].axes[0].get_xlabel()


def test_what_a_neuron_stands_for_is_its_gain_times_its_spikes(networks):
    for snn, x in networks.values():
        for site in snn.neurons:
            one = course(snn, x[:1], site)
            sent = sum(d for d, z in zip(one.d, one.z, strict=True) if z)
            assert one.output == pytest.approx(one.gain * (one.offset + sent))
            assert len(one.position) == len(snn.structure.image_axes[site].shape(snn.structure.shape_at(site, 1)))


def test_a_trace_says_what_it_holds_in_a_line(networks):
    snn, x = networks["dense"]
    trace = fs.simulate(snn, x, "pipeline")
    assert repr(trace) == (
        f"Trace(engine 'pipeline', 5 images, {trace.counts.total} spikes in 2 layers, those of 2 layers kept, "
        "answer after step 10, a new image every 10 steps)"
    )
    assert trace != fs.simulate(snn, x, "pipeline")
    with pytest.raises(fs.FewSpikesError, match="recording must be a Recording"):
        fs.simulate(snn, x, recording="folder")


def test_pictures_are_written_as_their_names_say(networks, tmp_path):
    snn, x = networks["dense"]
    trace = fs.simulate(snn, x, "pipeline")
    for name, begin in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml")):
        assert draw_raster(trace, tmp_path / name).read_bytes().startswith(begin)
        assert draw_course(course(snn, x[:1], "1"), tmp_path / name).read_bytes().startswith(begin)
    with pytest.raises(fs.FewSpikesError, match="must end in .png or .svg"):
        draw_raster(trace, tmp_path / "a.pdf")
    with pytest.raises(fs.FewSpikesError, match="there is no site 'no'"):
        draw_raster(trace, tmp_path / "a.png", ["no"])
