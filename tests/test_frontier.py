"""What is measured on held-out images, and the frontier of steps, spikes and error."""

import json

import numpy as np
import pytest
import torch

import fewspikes as fs
from budget_problems import measured as measure
from fewspikes.conversion.pareto import measured
from fewspikes.conversion.points import Frontier, Point, marked
from fewspikes.measure.deal import Images
from fewspikes.measure.expectation import expected_loss
from networks import small


def test_a_measurement_is_what_the_two_networks_do_on_the_images(problem):
    coarse = problem.build({site.name: 2 for site in problem.snn.sites}, quick=False)
    x = 2 * torch.randn(50, 6)
    labels = problem.model(x).argmax(1).where(torch.rand(50) < 0.8, torch.randint(0, 5, (50,)))
    outcome = measure(coarse, Images((x,), labels, size=30))
    ann, got = problem.model(x), coarse(x)
    right = [int((logits.argmax(1) == labels).sum()) for logits in (ann, got)]
    assert right[0] != right[1]
    assert outcome.images == 50
    assert outcome.drop == pytest.approx(100 * (right[0] - right[1]) / 50)
    assert outcome.agreement == pytest.approx(2 * int((ann.argmax(1) == got.argmax(1)).sum()))
    assert outcome.error == pytest.approx(
        float((got - ann).square().sum() / (ann - ann.mean(0)).square().sum()), rel=1e-5
    )
    assert outcome.expected_loss == expected_loss(ann, got, labels)
    assert outcome.loss == max(outcome.drop, outcome.expected_loss)
    with fs.count(coarse) as counts:
        coarse(x)
    assert outcome.spikes_per_neuron == counts.per_neuron


def test_the_expected_loss_with_each_images_own_error_is_the_measured_one():
    ann, noise, labels = torch.randn(200, 6), 0.5 * torch.randn(200, 6), torch.randint(0, 6, (200,))
    lost = (ann.argmax(1) == labels).double().mean() - ((ann + noise).argmax(1) == labels).double().mean()
    flips = ((ann + noise).argmax(1) != ann.argmax(1)).double().mean()
    assert expected_loss(ann, ann + noise, labels, neighbours=1) == pytest.approx(100 * float(lost))
    assert expected_loss(ann, ann + noise, None, neighbours=1) == pytest.approx(100 * float(flips))
    assert expected_loss(ann, ann, labels) == 0


def test_the_expected_loss_of_few_images_is_nearer_to_that_of_many_than_their_count():
    ann = torch.randn(20_000, 6)
    noise = 0.1 * torch.randn(20_000, 6)
    truth = 100 * float(((ann + noise).argmax(1) != ann.argmax(1)).double().mean())
    counted, expected = [], []
    for part in torch.arange(20_000).split(100):
        z, y = ann[part], (ann + noise)[part]
        counted.append(100 * float((y.argmax(1) != z.argmax(1)).double().mean()) - truth)
        expected.append(expected_loss(z, y, None) - truth)
    assert np.square(expected).mean() < 0.8 * np.square(counted).mean()


def point(latency, spikes, error):
    return Point("K=4", 4, latency, spikes, error, None, None, 8)


def test_a_point_is_dominated_by_one_that_is_no_worse_in_anything():
    points = marked([point(8, 1.0, 0.1), point(6, 1.0, 0.1), point(4, 0.5, 0.5), point(6, 0.9, 0.2)])
    assert [(p.latency_steps, p.dominated) for p in points] == [(4, False), (6, False), (6, False), (8, True)]


def test_the_frontier_holds_uniform_points_and_mixed_ones_within_their_cost(chain, tmp_path):
    points = measured(*chain.given, K=(3, 4), file=tmp_path / "frontier.json")
    by_choice = {p.choice: p for p in points}
    for K in (3, 4):
        even, mixed = by_choice[f"K={K}"], by_choice[f"steps of K={K}"]
        both = by_choice.get(f"both of K={K}", mixed)  # the same choice is listed once
        assert (even.k, even.latency_steps) == (K, 3 * K)
        assert mixed.latency_steps <= even.latency_steps
        assert mixed.error < even.error
        assert both.latency_steps <= even.latency_steps
        assert both.spikes_per_neuron < 1.05 * even.spikes_per_neuron
        assert set(mixed.k) == {site.name for site in chain.snn.sites}
    assert Frontier.load(tmp_path / "frontier.json") == points
    assert len(str(points).splitlines()) == len(points) + 2


def test_a_frontier_that_was_cut_off_goes_on_where_it_was(chain, tmp_path):
    path = tmp_path / "frontier.json"
    whole = measured(*chain.given, K=(3, 4), file=path)
    Frontier(whole.points[:2], whole.key).save(path)
    chain.built.clear()
    assert measured(*chain.given, K=(3, 4), file=path) == whole
    assert len(chain.built) == len(whole) - 2
    measured(*chain.given, K=(3,), file=path, settings={"effort": "long"})
    assert len(chain.built) > len(whole) - 2  # other settings: nothing is taken over


def test_a_frontier_in_which_one_digit_was_changed_is_refused_and_not_taken_over(chain, tmp_path):
    path = tmp_path / "frontier.json"
    measured(*chain.given, K=(3,), file=path)
    path.write_text(path.read_text().replace('"latency_steps": 9', '"latency_steps": 8'))
    for read in (lambda: Frontier.load(path), lambda: measured(*chain.given, K=(3,), file=path)):
        with pytest.raises(fs.FewSpikesError, match="its checksum differs; remove it to measure again"):
            read()


def test_a_point_beyond_all_numbers_comes_back_from_its_file(tmp_path):
    Frontier((point(4, 1.0, float("inf")),)).save(tmp_path / "frontier.json")
    assert next(iter(Frontier.load(tmp_path / "frontier.json"))).error == float("inf")


@pytest.mark.parametrize(
    "change", [{"k": "x"}, {"k": [3]}, {"latency_steps": None}, {"error": "1"}, {"images": 1.5}, {"agreement": "z"}]
)
def test_a_point_with_a_field_of_another_type_raises(change):
    with pytest.raises(fs.FewSpikesError, match="a point of the frontier"):
        Point.from_json(point(4, 1.0, 0.1).to_json() | change)


def test_a_frontier_needs_whole_numbers_and_a_file_of_its_own(chain, tmp_path):
    with pytest.raises(fs.FewSpikesError, match="whole numbers K from 1 to 24"):
        measured(*chain.given, K=(0, 3))
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"format": "something"}))
    with pytest.raises(fs.FewSpikesError, match="wanted 'fewspikes-frontier'"):
        measured(*chain.given, K=(3,), file=other)


def test_the_frontier_of_a_model_is_measured_on_images_held_out(tmp_path):
    images, model = torch.randn(64, 3, 8, 8), small()
    labels = model(images).argmax(1)
    points = fs.frontier(model, images, [(images, labels)], K=(3,), file=tmp_path / "frontier.json")
    even = next(p for p in points if p.choice == "K=3")
    assert (even.k, even.images, even.latency_steps) == (3, 32, 6)
    assert even.drop == pytest.approx(100 - even.agreement)  # the labels are the ANN's own classes
    assert fs.Frontier.load(tmp_path / "frontier.json") == points
    wrong = [(images, labels + 1)]
    with pytest.raises(fs.FewSpikesError, match="is outside the network's classes"):
        fs.frontier(model, images, wrong, K=(3,))


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (None, {}, "a frontier is measured on images"),
        (torch.zeros(8, 3, 8, 8), {"codes": fs.Codes(K=4)}, "leave K and alpha out of the codes"),
        (torch.zeros(8, 3, 8, 8), {"K": ()}, "whole numbers K from 1 to 24"),
        (torch.zeros(8, 3, 8, 8), {"K": 3.0}, "whole numbers K from 1 to 24; got 3.0"),
        (torch.zeros(8, 3, 8, 8), {"K": (3, "4")}, "whole numbers K from 1 to 24"),
        (torch.zeros(8, 3, 8, 8), {"K": (3,), "file": "/no/such/folder/f.json"}, "cannot write .* make it first"),
    ],
)
def test_a_frontier_of_a_model_needs_images_and_no_k_of_its_own(images, options, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        fs.frontier(small(), torch.zeros(1, 3, 8, 8), images, **options)
