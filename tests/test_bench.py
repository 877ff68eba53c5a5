"""What `bench` says is complete and consistent; how fast this machine is no test can know."""

import pytest
import torch

import fewspikes as fs
from fewspikes.bench import activation_rows, conditions, fit_rows, growth_rows, memory_row, network_row
from fewspikes.bench.timing import alternate, ratio
from fewspikes.models import load_model
from networks import small


def test_jobs_run_in_turn_so_that_a_slow_moment_meets_all_of_them():
    calls = []
    found = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, seconds=0.0)
    assert calls[:6] == ["a", "b"] * 3
    assert found["a"].runs == found["b"].runs == 5
    assert found["a"].least <= found["a"].median <= found["a"].most
    assert ratio(found["a"], found["a"]) == 1


def test_neurons_are_timed_by_engine_steps_and_size():
    rows = list(activation_rows(steps=(4, 8), sizes=(1000,), seconds=0.01))
    assert [(row["K"], row["elements"]) for row in rows] == [(4, 1000), (8, 1000)]
    assert {"layer", "counts per element", "eager loop", "silu", "copy"} == rows[0]["ns_per_element"].keys()
    assert rows[0]["ns_per_element"]["eager loop"] > 0


def test_fits_are_timed_with_their_error():
    (row,) = fit_rows([("relu", 6)])
    assert row["seconds"] > 0
    assert row["mse"] == fs.fit("relu", 6).mse


def test_a_network_is_timed_beside_its_ann_and_counts_its_own_spikes():
    model, images = small(), torch.randn(4, 3, 8, 8)
    row = network_row(model, images, seconds=0.01, K=5)
    snn = fs.convert(model, images[:2], K=5, alpha=25.0, rounding="nearest")
    with fs.count(snn) as counts:
        snn(images)
    assert row["spikes_per_neuron"] == pytest.approx(counts.per_neuron, rel=1e-3)  # another layout, other roundings
    assert row["K"] == 5
    assert row["images_per_second"].keys() == {"ann", "ann_folded", "snn", "snn_counted"}
    speed = row["images_per_second"]
    assert row["snn_over_ann"] == pytest.approx(speed["snn_counted"] / speed["ann"])


def test_growth_covers_steps_batches_and_passes():
    rows = list(growth_rows(small(), torch.randn(4, 3, 8, 8), (3, 4), (1, 4, 8), (1, 2), seconds=0.01))
    assert [(row["grows"], row["value"]) for row in rows] == [
        ("K", 3), ("K", 4), ("batch", 1), ("batch", 4), ("batches", 1), ("batches", 2),
    ]  # fmt: skip


def test_memory_is_that_of_two_processes():
    model = load_model("fewspikes:resnet8", random=True).model
    images = torch.zeros(2, 3, 32, 32)
    row = memory_row("fewspikes:resnet8", None, True, fs.convert(model, images), images)
    assert row["ann_mib"] > 50  # torch alone takes more
    assert row["snn_over_ann"] == pytest.approx(row["snn_mib"] / row["ann_mib"])


def test_a_process_that_fails_says_why():
    model = load_model("fewspikes:resnet8", random=True).model
    with pytest.raises(fs.FewSpikesError, match="process that measures memory failed: .*has no model 'resnet9'"):
        memory_row("fewspikes:resnet9", None, True, fs.convert(model, torch.zeros(2, 3, 32, 32)), torch.zeros(1))


def test_results_are_signed():
    signed = conditions(torch)
    assert signed["versions"]["fewspikes"] == fs.__version__
    assert signed["machine"]["threads"] == torch.get_num_threads()
    assert len(signed["date"]) == 10
