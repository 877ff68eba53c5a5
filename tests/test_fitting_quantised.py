"""Parameters on a chip's grid, fitted with the grid in the loop; and backpropagation through time."""

import itertools

import numpy as np
import pytest

import fewspikes as fs
from fewspikes.fitting.backpropagation import Training, train
from fewspikes.fitting.fitting import even_and_seen
from fewspikes.fitting.grids import neuron_on_grid, objective_on_grid, repair
from fewspikes.fitting.staircase import error_and_spikes, workspace
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.grid import Grid

SILU = Activation("silu")

pytestmark = pytest.mark.usefixtures("one_thread")


def numbers(p):
    return np.concatenate([p.T, p.h, p.d, [p.offset]])


@pytest.mark.parametrize(
    "grid", [Grid(4), Grid(8), Grid(6, endpoint=True), Grid(8, scale=0.5), Grid(7, -4.0, 4.0), Grid(8, scale=None)]
)
def test_every_number_of_a_quantised_fit_lies_on_the_grid(grid):
    p = fs.fit("silu", 6, (-8, 8), bits=grid, effort="quick").parameters
    stated = Grid(**p.provenance["grid"])
    places = (numbers(p) - stated.first) / stated.step
    assert places == pytest.approx(np.round(places), abs=1e-9)
    assert (np.round(places) >= 0).all()
    assert (np.round(places) < 2**grid.bits).all()


def test_without_an_offset_the_offset_is_0():
    assert fs.fit("silu", 6, (-8, 8), bits=6, offset=False, effort="quick").parameters.offset == 0.0


@pytest.mark.parametrize("bits", [5, 7])
def test_the_grid_in_the_loop_beats_rounding_afterwards(bits):
    fitted = fs.fit("silu", 6, (-8, 8), bits=bits)
    rounded = fs.fitting.measure(fs.fit("silu", 6, (-8, 8)).parameters.quantize(bits), SILU, (-8, 8))
    assert fitted.mse < rounded.mse


def test_silu_with_8_bits():
    result = fs.fit("silu", 16, (-8, 8), bits=8, offset=False, effort="quick")
    assert result.mse_main <= 8e-4


def test_a_quantised_fit_is_the_same_again():
    a, b = (fs.fit("tanh", 4, bits=5, effort="quick", seed=2).parameters for _ in range(2))
    assert a == b


def test_the_objective_on_the_grid_is_that_of_the_neuron_on_the_grid():
    grid, K = Grid(8), 5
    made = even_and_seen(SILU, (-8.0, 8.0), "uniform", spike_price=0.2, centred=False)
    code = grid.round(np.array([4.0, 2.1, 1.0, 0.4, 0.1, 4.0, 2.0, 1.0, 0.5, 0.2]))
    work, L, b = workspace(K), np.empty((K + 1, K + 1)), np.empty(K + 1)
    found = objective_on_grid(code, made, work, grid.first, grid.step, 255, L, b)
    error, spikes = error_and_spikes(neuron_on_grid(made, code, grid), made)
    paid = error + 0.2 * made.variance * spikes
    assert found == pytest.approx(np.log(paid) + made.preference * spikes, abs=1e-9)


def test_rounded_weights_are_nearly_the_best_on_the_grid():
    grid = Grid(5)
    made = even_and_seen(SILU, (-8.0, 8.0), "uniform", centred=False)
    code = grid.round(np.array([4.0, 2.0, 1.0, 4.0, 2.0, 1.0]))
    p = neuron_on_grid(made, code, grid)
    around = itertools.product(*([value + i * grid.step for i in (-2, -1, 0, 1, 2)] for value in [*p.d, p.offset]))
    best = min(error_and_spikes(fs.FSParameters(p.T, p.h, other[:3], other[3]), made)[0] for other in around)
    assert error_and_spikes(p, made)[0] <= 1.05 * best


def test_repair_moves_each_weight_to_its_best_place():
    A, b, d = np.diag([1.0, 2.0]), np.array([3.2, 1.0]), np.zeros(2)
    repair(A, b, d, 2, -8.0, 0.5, 31)
    assert d.tolist() == [3.0, 0.5]


def test_a_grid_chooses_the_least_power_of_two_that_holds_the_parameters():
    assert fs.relu_parameters(10, 25.0).quantize(10, scale=None).provenance["grid"]["scale"] == 2.0
    assert fs.relu_parameters(4, 25.0).quantize(8, scale=None).d.tolist() == [12.5, 6.25, 3.125, 1.5]


def test_the_last_value_is_a_step_below_the_end_or_the_end_itself():
    assert Grid(4).round(np.array([99.0, -99.0])).tolist() == [7.0, -8.0]
    assert Grid(4, endpoint=True).round(np.array([99.0, -99.0])) == pytest.approx([8.0, -8.0])


def test_backpropagation_through_time_learns():
    made = even_and_seen(SILU, (-8.0, 12.0), (-0.112, 1.99), (-2.0, 2.0), offset=False)
    few, many = (train(made, 4, 0, Training(restarts=4, steps=steps)) for steps in (1, 150))
    errors = [error_and_spikes(p, made)[0] for p in (few, many)]
    assert errors[1] < errors[0] / 2
    assert few.offset == many.offset == 0.0


def test_backpropagation_through_time_learns_to_spare_spikes():
    free, priced = (even_and_seen(SILU, (-8.0, 12.0), (-0.112, 1.99), spike_price=price) for price in (0.0, 1.0))
    alone = Training(restarts=1, steps=300)  # so that there is nothing to choose among
    spikes = [error_and_spikes(train(made, 4, 0, alone), priced)[1] for made in (free, priced)]
    assert spikes[1] < spikes[0] / 2


def test_the_search_beats_backpropagation_through_time():
    trained = fs.fit("silu", 8, method="bptt", effort="quick")
    assert trained.parameters.provenance["method"] == "bptt"
    assert fs.fit("silu", 8).mse < trained.mse


def test_backpropagation_with_bits_sees_the_grid():
    p = fs.fit("silu", 4, (-8, 8), method="bptt", bits=6, effort="quick").parameters
    assert (numbers(p) * 4 == np.round(numbers(p) * 4)).all()
