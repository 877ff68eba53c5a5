"""Sums of many numbers: right, differentiable, and the same to the last bit whatever the number of threads."""

import pytest
import torch

from fewspikes.base.sums import mean, row_sums, total, variance


@pytest.fixture(params=[1, 2, 3, 7])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


X = torch.randn(3, 1_000_003, generator=torch.Generator().manual_seed(1))
ALONE = {}


def test_no_bit_depends_on_the_number_of_threads(threads):
    got = [float(total(X)), float(mean(X)), variance(X), row_sums(X).tolist(), row_sums(X[:1]).tolist()]
    assert got == ALONE.setdefault("sums", got)


@pytest.mark.parametrize("n", [0, 1, 100, 1 << 14, (1 << 14) + 1, 1_000_003])
def test_a_total_is_the_sum(n):
    x = X[0, :n].double()
    assert float(total(x)) == pytest.approx(float(x.sum()), rel=1e-12, abs=1e-12)


def test_a_totals_gradient_is_1_everywhere():
    x = X[0, :50_000].clone().requires_grad_()
    total(x).backward()
    assert torch.equal(x.grad, torch.ones(50_000))


def test_mean_and_variance_are_those_of_all_numbers():
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert float(mean(x)) == 3
    assert variance(x) == (4 + 1 + 0 + 9) / 4
    assert row_sums(x).tolist() == [3, 9]
    assert row_sums(x[:1]).tolist() == [3]
