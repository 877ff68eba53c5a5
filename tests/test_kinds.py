"""Networks of every kind that users write convert: the ANN form is the network, at any batch size, also in a file."""

import pytest
import torch

import fewspikes as fs
from kinds import KINDS
from kinds.comparing import batches, difference, equal, first, run, tensors

NEAR = 1e-5  # relative difference of the ANN form; rounding makes 4e-7


@pytest.mark.filterwarnings("ignore::fewspikes.FewSpikesWarning")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_network_of_each_kind_converts_and_its_ann_form_is_the_network(kind, tmp_path):
    model, seen, other = kind.build(), kind.inputs(16), kind.inputs(3)
    snn = fs.convert(model, first(seen, 1), batches(seen, 8), K=8, effort="quick", repair=False)
    ann = snn.as_ann()
    with torch.no_grad():
        assert tensors(run(model, other))
        for inputs in (first(other, 1), other):
            assert difference(run(ann, inputs), run(model, inputs)) <= NEAR
        fs.save(snn, tmp_path / "network.fs")
        assert equal(run(fs.load(tmp_path / "network.fs"), other), run(snn, other))
