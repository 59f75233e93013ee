"""bench.fleet runs, on a few targets in place of a thousand, and deploys and serves them."""

from __future__ import annotations

import pytest

from bench import fleet


def test_everything_is_deployed_and_served(capsys: pytest.CaptureFixture[str]) -> None:
    assert fleet.main(["--pipelines", "2", "--accounts", "1"]) == 0
    said = capsys.readouterr().out
    assert "20 targets of 2 pipelines in 1 accounts" in said
    rows = {
        name: line.removeprefix(name).replace(",", "").split()
        for line in said.splitlines()
        for name in fleet.PHASES
        if line.startswith(f"{name}  ")
    }
    assert set(rows) == set(fleet.PHASES)
    for name in ("first deployment", "renewal, in place"):
        deployed, floor, ratio, served, by_aws = map(float, rows[name][-5:])
        # Two imports in each of two regions, one a second.
        assert floor == 1.0
        assert ratio >= 1.0
        assert deployed < by_aws <= served
    # Nothing is written, and each of 14 distributions and listeners is looked at, at two addresses.
    handshakes, *_, by_aws_again = rows["daily check"][4:]
    assert int(handshakes) >= 2 * 14
    assert by_aws_again == "-"
