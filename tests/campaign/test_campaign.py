"""The whole campaign: an hour on two quiet cores. a stopped one is continued."""

import subprocess

import pytest

from campaign import run
from campaign.record import read_all
from campaign.report import faults, report

pytestmark = pytest.mark.slow
# One folder per commit: what an older version did says nothing about this one.
HEAD = subprocess.run(
    ["git", "rev-parse", "--short", "HEAD"],
    cwd=run.ROOT,
    capture_output=True,
    text=True,
)
OUT = run.ROOT / "build" / "campaigns" / (HEAD.stdout.strip() or "unknown")


@pytest.mark.parametrize("part", run.PARTS)
def test_nothing_goes_wrong_silently(part):
    run.run_part(part, out=OUT)
    rows = [row for row in read_all(OUT) if row["part"] == part]
    text = report(rows)
    print(text)
    assert rows and not faults(rows), text
    if part == "inputs":
        assert len(rows) >= 5000
    if part == "kills":
        assert sum(row["kills"] for row in rows) >= 200
