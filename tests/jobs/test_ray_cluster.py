"""A real cluster of two machines with two processes each, of which one machine dies."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers.letter_job import files, run
from helpers.programs import ROOT

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

# Each machine is the processes that `ray start` would make, on this one.
PROGRAM = """
import sys, threading, time
from ray.cluster_utils import Cluster
from helpers import letter_job
from musilingo_jax.jobs.engine import Engine

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
second = cluster.add_node(num_cpus=2)
done = []

def kill():
    # When something is made, and something is not.
    folder = letter_job.Path(sys.argv[1])
    while len(list(folder.glob("0*.jsonl"))) < 3:
        time.sleep(0.05)
    cluster.remove_node(second, allow_graceful=False)
    done.append(True)

threading.Thread(target=kill, daemon=True).start()
engine = Engine("ray", cluster.address, 0, 1)
state = letter_job.run(sys.argv[1], engine=engine, wait=0.4, shard_items=1)
assert done and not state.unfinished
cluster.shutdown()
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="Ray's nodes are Linux's")
def test_a_machine_is_lost_and_the_files_are_the_same(tmp_path):
    run(tmp_path / "one", shard_items=1)
    env = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "JAX_PLATFORMS": "cpu",
    }
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "TMPDIR": "/tmp"}
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / "ray")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "ray") == files(tmp_path / "one")
    (path,) = (tmp_path / "ray/journal").iterdir()
    events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert events.count("made") == 17 and "lost" in events and events[-1] == "ended"
    assert "was lost" in done.stderr
