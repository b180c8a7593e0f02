"""experiments.growth: a point for each value of an axis, in tables, JSON and a picture."""

import json

import pytest

from experiments import growth
from tests.script_runs import scripts

__all__ = ["scripts"]

SMALL = ("--batch_sizes=4,8", "--num_samples=2", "--widths=4", "--runs=2", "--rounds=1", "--workdir=g")
# Three of the five points are the same program.
BASE = {"batch_sizes": 4, "num_samples": 2, "widths": 4, "runs": 1}


def test_every_value_of_every_axis_is_measured(scripts, tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "BASE", BASE)
    code, out, err = scripts.call(tmp_path, "growth", *SMALL)
    assert (code, err) == (0, "")
    points = json.loads((tmp_path / "g" / "growth.json").read_text())["points"]
    assert {name: [point["value"] for point in of] for name, of in points.items()} == {
        "batch_sizes": [4, 8], "num_samples": [2], "widths": [4], "runs": [2]
    }  # fmt: skip
    for point in (point for of in points.values() for point in of):
        assert len(point["seconds"]) == len(point["limit"]) == 1
        assert point["seconds"][0] > 0
        assert point["bytes"] > 7_840_000  # the data alone
    assert (tmp_path / "g" / "growth.png").exists()
    assert "| batch size | ms a step |" in out


@pytest.mark.parametrize("flag", ["--batch_sizes=20000", "--batch_sizes=0"])
def test_a_batch_that_there_cannot_be_is_refused(flag, scripts, tmp_path):
    scripts.refusal(tmp_path, "growth", flag)
