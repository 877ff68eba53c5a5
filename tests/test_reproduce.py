"""The paper's tables and figures: what can be counted is exact, what cannot be had is said, nothing is lost."""

import csv
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import save_file

import fewspikes as fs
from fewspikes.images import Preprocessing, loader, open_images
from fewspikes.models import load_model, resnet8
from fewspikes.paper import NAMES, Sources, cifar, imagenet, neurons, published, reproduce
from fewspikes.paper.results import Folder
from fewspikes.paper.sources import check_labels, spread
from images import CIFAR, SMALL
from test_cli import run

NEURONS = {"resnet8": 73_728, "resnet14": 131_072, "resnet20": 188_416, "resnet50": 475_136}


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "results")


def made(name, folder, sources=None):
    return next(reproduce(name, folder, sources or Sources()))


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """All of it without any data, with few points in Fig. 8."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neurons, "FIG_8B_STEPS", (4,))
        patch.setattr(neurons, "FIG_8_BITS", (8,))
        folder = Folder(tmp_path_factory.mktemp("all"))
        return {found.name: found for found in reproduce("all", folder, Sources())}, folder.path


def test_all_without_data_gives_every_figure_and_says_what_the_rest_needs(everything):
    found, path = everything
    assert set(found) == set(NAMES) - {"all"}
    for name in found:
        content = json.loads((path / f"{name}.json").read_text())
        assert content["rows"] == json.loads(json.dumps(found[name].rows))
        with (path / f"{name}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == len(content["rows"])
    for number in range(2, 9):
        assert (path / f"fig{number}.png").read_bytes().startswith(b"\x89PNG")
        assert (path / f"fig{number}.svg").read_text().rstrip().endswith("</svg>")
    assert "celltypes.brain-map.org" in found["fig1"].rows[0]["unavailable"]
    assert "needs trained weights of resnet50: give --weights" in found["table2"].rows[1]["unavailable"]
    assert all("unavailable" in row for row in found["table2"].rows if row["row"] != "paper")
    missing = [row["unavailable"] for row in found["table1"].rows if "unavailable" in row]
    assert len(missing) == 4
    assert all("needs ImageNet: give --data DIR" in reason for reason in missing)


def test_table_1_counts_the_papers_networks_exactly(everything):
    b7, resnet50 = everything[0]["table1"].rows[1], everything[0]["table1"].rows[3]
    assert b7["neurons_by_activation"] == {"silu": 259_366_992, "sigmoid": 70_240}
    assert b7["layers"] == 218
    assert b7["share_by_activation"]["silu"] == pytest.approx(published.SILU_SHARE, abs=0.005)
    assert round(b7["parameters"] / 1e6) == 66
    assert (resnet50["neurons"], round(resnet50["parameters"] / 1e6)) == (9_608_704, 26)


def test_table_2_counts_the_papers_networks_exactly(everything):
    rows = {row["model"]: row for row in everything[0]["table2"].rows if row["row"] == "measured"}
    assert {name: rows[name]["neurons"] for name in NEURONS} == NEURONS
    stated = {row.model.lower(): row.neurons for row in published.TABLE_2}
    assert stated == NEURONS


def test_claims_follow_from_the_papers_numbers(everything):
    rows = {row["claim"]: row for row in everything[0]["claims"].rows}
    assert rows["125 times the throughput of ResNet34, rate-coded"]["paper"] == 125
    assert rows["40 times fewer spikes than a converted ResNet11"]["paper"] == pytest.approx(42.08, abs=0.01)
    assert rows["log2 N steps for N values of a ReLU"]["measured"] == 1024  # counted, not stated
    assert rows["log2 N steps for N values of a ReLU"]["calibrated"] == 32


def test_figure_3_is_the_recurrence(everything):
    for values in everything[0]["fig3"].series.values():
        p = fs.published(values["activation"])
        z = fs.encode(torch.tensor([values["x"]], dtype=torch.float64), p)
        assert z[:, 0].int().tolist() == values["z"]
        assert float(fs.decode(z, p, torch.float64)) == pytest.approx(values["y"], rel=1e-12)
        assert [v >= T for v, T in zip(values["v"], values["T"], strict=True)] == [bool(s) for s in values["z"]]


def test_figures_4_and_5_have_ours_at_half_the_steps_no_worse_than_the_published_tables(everything):
    for name, key in (("fig4", "mse_main"), ("fig5", "mse")):
        measured, half, least = everything[0][name].rows[-3:]
        assert half["K"] * 2 == measured["K"] == least["K"]
        assert half[key] < 1.05 * measured[key]
        assert least[key] < measured[key] / 10
        assert half["mean_spikes"] < measured["mean_spikes"]


def test_figure_6_errs_by_a_step_at_most_and_to_nearest_by_half(everything):
    caption, text, ours = everything[0]["fig6"].rows
    assert caption["largest_error"] <= caption["step"]
    assert text["largest_error"] <= text["step"]
    assert ours["largest_error"] <= ours["step"] / 2


def test_figure_7_has_the_papers_means(everything):
    silu, ours, relu, _ = everything[0]["fig7"].rows
    assert silu["mean_spikes_gaussian"] == pytest.approx(2.27, abs=0.01)  # of the published table
    assert ours["mean_spikes_gaussian"] < silu["mean_spikes_gaussian"]
    assert relu["mean_spikes_gaussian"] < 2


def test_figure_8_has_ours_below_the_others(everything):
    rows = everything[0]["fig8"].rows
    b = next(row for row in rows if row["part"] == "b" and row["row"] == "calibrated")
    assert b["mse_main"] < b["bptt_mse_main"]
    assert b["mse"] < b["bptt_mse"]
    for part in "cd":
        row = next(row for row in rows if row["part"] == part)
        assert row["mse"] < min(row["bptt_mse"], row["published_mse"])


def test_pictures_name_their_axes_and_units(everything):
    texts = {n: (everything[1] / f"fig{n}.svg").read_text() for n in range(2, 9)}
    assert "time step t" in texts[3]
    assert "0.0064 outside" in texts[4]
    assert "mean -0.112, variance 1.99" in texts[7]
    assert "test accuracy (%)" in texts[8]


def test_a_row_is_measured_once_and_anew_where_a_setting_differs(folder):
    calls = []

    def make():
        calls.append(1)
        return {"row": "measured"}

    for settings in ({"seed": 0}, {"seed": 0}, {"seed": 1}):
        folder.row("table2", "resnet8", settings, make)
    assert len(calls) == 2
    Folder(folder.path).row("table2", "resnet8", {"seed": 0}, make)  # another run goes on
    assert len(calls) == 2
    Folder(folder.path, again=True).row("table2", "resnet8", {"seed": 0}, make)
    assert len(calls) == 3


@pytest.mark.parametrize("content", ['{"half', "[1, 2]", ""])
def test_a_damaged_file_of_rows_is_measured_anew(folder, content):
    (folder.path / ".table2.rows.json").write_text(content)
    assert folder.row("table2", "resnet8", {}, lambda: {"row": "measured"}) == {"row": "measured"}


def test_a_row_in_which_one_digit_was_changed_is_measured_anew(folder):
    folder.row("table2", "resnet8", {}, lambda: {"row": "measured", "steps": 915})
    file = folder.path / ".table2.rows.json"
    file.write_text(file.read_text().replace("915", "925"))
    assert Folder(folder.path).row("table2", "resnet8", {}, lambda: {"steps": 1}) == {"steps": 1}


def test_two_runs_do_not_share_a_folder(folder):
    with FileLock(folder.path / ".lock"):
        done = run("reproduce", "fig1", "-o", folder.path, code=2)
    assert done.stderr.startswith(f"error: another run writes to {folder.path}; wait for it")
    made("fig1", folder)


class Reads(torch.nn.Module):
    """Names the class that the image's first pixels hold, one-hot."""

    def forward(self, x):
        return x[:, 0, 0]


@pytest.mark.parametrize(
    ("by", "words"), [(1, "look moved by 1"), (-1, "look moved by -1"), (5, "no better than chance")]
)
def test_labels_that_cannot_be_right_are_refused_before_hours_are_spent(by, words):
    classes = torch.arange(200) % 10
    x = torch.nn.functional.one_hot(classes, 10).float().view(200, 1, 1, 10)
    check_labels(Reads(), [(x, classes)], 10, "here")
    with pytest.raises(fs.FewSpikesError, match=words):
        check_labels(Reads(), [(x, (classes + by) % 10)], 10, "here")


def test_moved_labels_of_photographs_are_noticed_though_neighbours_are_alike(data):
    loaded = load_model("fewspikes:efficientnet_lite0")
    images = spread(open_images(data / "imagenet-sample", "val", loaded.preprocessing, 1000)).part(np.arange(0, 500, 3))
    with torch.inference_mode():
        named = torch.cat([loaded.model(x).argmax(1) for x, _ in loader(images, 32)])
    x, labels = torch.nn.functional.one_hot(named, 1000).float().view(-1, 1, 1, 1000), torch.tensor(images.labels)
    check_labels(Reads(), [(x, labels)], 1000, "here")
    for by in (1, -1):
        with pytest.raises(fs.FewSpikesError, match=f"look moved by {by}"):
            check_labels(Reads(), [(x, (labels + by) % 1000)], 1000, "here")


def test_no_image_to_measure_on_is_said(folder, data):
    with pytest.raises(fs.FewSpikesError, match="leaves no image to measure on"):
        check_labels(Reads(), [], 10, "here")


def test_imagenets_validation_images_are_its_test_and_none_of_them_calibrates_too(save, tmp_path):
    for split in ("val", "test"):
        for i in range(12):
            save(f"{split}/n01440764/{i}.png")
    weighted = SimpleNamespace(preprocessing=SMALL)
    some, rest = (imagenet._images(Sources(), tmp_path, weighted, purpose) for purpose in ("calibration", "test"))
    assert (some.split, rest.split) == ("val", "val")
    assert (len(some), len(rest)) == (2, 10)
    save("train/n01440764/1.png")
    assert imagenet._images(Sources(), tmp_path, weighted, "calibration").split == "train"
    assert len(imagenet._images(Sources(), tmp_path, weighted, "test")) == 12


def test_a_row_without_damaged_images_is_none_of_a_stricter_run():
    assert Sources(skip_damaged=True).settings != Sources().settings


def test_the_papers_setting_and_the_calibrated_network_are_measured_on_the_same_images(folder, data, monkeypatch):
    monkeypatch.setattr(cifar, "_DISTILLING_STEPS", 2)
    monkeypatch.setattr(cifar, "DISTILLING_IMAGES", 256)
    sources = Sources(data, limit=200, batch=100)
    *ours, measured, calibrated = cifar.rows(folder, sources, "resnet20")
    assert [row["weights"] for row in ours] == ["ours", "ours"]
    assert measured["images"] == calibrated["images"] == 200
    assert measured["ann_top1"] == calibrated["ann_top1"] > 85
    assert measured["weights"] == "third-party"
    assert (measured["k"], calibrated["k"]) == (10, 5)
    assert calibrated["spikes_per_neuron"] < measured["spikes_per_neuron"]
    assert measured["paper_latency_steps"] == 190  # 19 layers of neurons


def test_our_own_rows_can_be_left_out(folder, data):
    (row,) = cifar.rows(folder, Sources(data, limit=100, batch=100, calibrated=False), "resnet8")
    assert row["row"] == "measured"
    found = cifar.fig8a(folder, Sources(data, limit=20, batch=20, calibrated=False))
    assert {row["row"] for row in found} == {"measured"}


def test_damaged_images_are_left_out_of_a_row_that_says_so(folder, data, tmp_path):
    from_here = open_images(data / "cifar10", "test", CIFAR, 10, limit=60)
    for number in range(10):
        (tmp_path / f"cifar10/test/{number}").mkdir(parents=True)
    for i in range(60):
        from_here.image(i).save(tmp_path / f"cifar10/test/{from_here.labels[i]}/{i}.png")
    next(tmp_path.glob("cifar10/test/*/7.png")).write_text("no image")
    with pytest.raises(fs.FewSpikesError, match=r"7\.png is not an image"):
        cifar.rows(folder, Sources(tmp_path, calibrated=False), "resnet8")
    with pytest.warns(fs.FewSpikesWarning, match="1 of 60 images were left out"):
        (row,) = cifar.rows(folder, Sources(tmp_path, calibrated=False, skip_damaged=True), "resnet8")
    assert (row["images"], row["left_out"]) == (59, 1)


def test_a_full_disk_stops_a_run_in_one_line_and_what_was_there_stays(tmp_path):
    """No file may grow beyond 300 bytes, which stands for a disk without room."""
    run("reproduce", "fig1", "-o", tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300));"
        "sys.argv = ['fewspikes', 'reproduce', 'fig1', '-o', sys.argv[1]];"
        "from fewspikes.cli.main import main; main()"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"error: cannot write .*fig1\.json: File too large\n", done.stderr)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_run_that_is_killed_leaves_whole_files_and_goes_on(tmp_path):
    words = [sys.executable, "-m", "fewspikes", "reproduce", "fig8", "-o", str(tmp_path), "--no-pictures"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ, "FEWSPIKES_DATA": ""}) as first:
        for line in first.stderr:
            if re.match(r"fig8: b: K=4, \d+ s", line):
                first.kill()
                break
    kept = json.loads((tmp_path / ".fig8.rows.json").read_text())["rows"]
    assert len(kept) == 2
    said = []
    folder = Folder(tmp_path, say=said.append)
    with folder.locked():  # the killed run holds no lock
        folder.row("fig8", "b: K=4", {}, lambda: pytest.fail("measured again"))
    assert said == ["fig8: b: K=4, kept"]


def test_imagenet_rows_are_measured_where_images_and_weights_are(folder, data):
    network = imagenet.NETWORKS[-1]  # the one whose weights come in a package
    rows = imagenet.rows(folder, Sources(data, limit=40, batch=20), network)
    assert [row["row"] for row in rows] == ["measured", "calibrated"]
    assert all(row["images"] == 36 and row["data"] == "ImageNet sample" for row in rows)  # a tenth calibrates
    assert all(row["ann_top1"] > 75 for row in rows)
    assert rows[1]["spikes_per_neuron"] < 0.75 * rows[0]["spikes_per_neuron"]


def test_large_images_come_in_small_batches():
    sizes = {side: Preprocessing((side, side), (0.5,) * 3, (0.5,) * 3) for side in (32, 224, 600, 2000)}
    loaders = [Sources(workers=2).loader([], like) for like in sizes.values()]
    assert [found.batch_size for found in loaders] == [250, 39, 5, 1]
    assert [found.num_workers for found in loaders] == [0, 2, 2, 2]


def test_weights_that_cannot_be_fetched_leave_the_counts(folder, data, no_network):
    (row,) = imagenet.rows(folder, Sources(data), imagenet.NETWORKS[2])
    assert row["neurons"] == 9_608_704
    assert "--weights resnet50_max=FILE.safetensors" in row["unavailable"]


def test_weights_can_be_given(folder, data, tmp_path):
    save_file(resnet8().state_dict(), tmp_path / "r8.safetensors")
    sources = Sources(data, {"resnet8": str(tmp_path / "r8.safetensors")}, limit=100)
    with pytest.raises(fs.FewSpikesError, match="no better than chance"):  # they are random
        cifar.rows(folder, sources, "resnet8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table9",), "unknown table or figure 'table9'; there are table1, table2"),
        (("fig1", "--weights", "resnet8"), "--weights must be NAME=FILE; got 'resnet8'"),
        (("fig1", "--weights", "resnet9=none.safetensors"), "--weights: unknown network 'resnet9'; there are resnet50"),
        (("fig1", "--weights", "resnet8=none.safetensors"), "--weights resnet8: no file none.safetensors"),
        (("fig1", "--data", "nowhere"), "no folder nowhere"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path, arguments, message):
    assert message in run("reproduce", *arguments, "-o", tmp_path / "r", code=2).stderr


def test_the_command_prints_rows_as_json_and_writes_the_files(tmp_path):
    done = run("reproduce", "fig6", "-o", tmp_path / "r", "--json")
    content = json.loads(done.stdout)
    assert content["name"] == "fig6"
    assert [row["row"] for row in content["rows"]] == ["measured", "measured", "calibrated"]
    assert {file.name for file in (tmp_path / "r").iterdir()} >= {"fig6.json", "fig6.csv", "fig6.png", "fig6.svg"}
