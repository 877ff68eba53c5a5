"""The attack in short: damaged files and odd arguments end in a result or in one line; and it sees what does not."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import fewspikes as fs

pytest.importorskip("torchvision", reason="needs the extra vision")
pytest.importorskip("pyarrow", reason="needs the extra vision")
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import attack

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.mark.parametrize(("part", "count"), [("files", 300), ("calls", 80)])
def test_what_is_damaged_or_odd_ends_in_a_result_or_in_one_line(part, count):
    found = attack.summary(attack.results(part, 5, range(count)), count)
    assert found["violations"] == []
    assert found["cases"] == count
    outcomes = sum((Counter(row) for row in found["kinds"].values()), Counter())
    assert outcomes["refused"] > count / 2
    assert outcomes["equal"] + outcomes["loaded"] + outcomes["result"] > count / 50


class Attacker:
    name, how = "a kind", "a way"

    def __init__(self, raised):
        self.raised = raised

    def once(self, random):
        if self.raised is not None:
            raise self.raised
        return "result"


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [
        (None, "result"),
        (fs.FewSpikesError("one line"), "refused"),
        (fs.FewSpikesError("two\nlines"), "violation"),
        (fs.FewSpikesError("x" * 5000), "violation"),
        (fs.FewSpikesError(""), "violation"),
        (KeyError("leaks"), "violation"),
        (MemoryError(), "violation"),
        (SystemExit(0), "violation"),
    ],
)
def test_only_results_and_errors_of_one_line_are_no_violations(raised, outcome):
    assert attack.run_case([Attacker(raised)], "files", 0, 0)["outcome"] == outcome


def test_a_file_that_loads_as_something_else_is_a_violation(tmp_path):
    from attacks.files import Parameters

    kind = Parameters(tmp_path / "p.json")
    kind.saved = fs.published("sigmoid")
    kind.damage = lambda random: ("none", kind.whole)
    kind.forge = kind.damage
    with pytest.raises(AssertionError, match="it loads, and is not what was saved"):
        kind.once(np.random.default_rng(0))


def test_a_case_is_the_same_whatever_ran_before_it():
    few, many = (list(attack.results("files", 3, numbers)) for numbers in ([7], range(8)))
    assert {name: few[0][name] for name in ("kind", "how", "outcome")} == {
        name: many[7][name] for name in ("kind", "how", "outcome")
    }
