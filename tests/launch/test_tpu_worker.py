"""`launch/tpu_worker.sh`, the part for each worker of a TPU, run on this machine."""

import os
import shutil
import subprocess
import time

import pytest
from helpers.fake_programs import LAUNCH, executable
from helpers.processes import HANG


@pytest.fixture
def worker(tmp_path):
    """Runs the script in a folder of its own, with a fake Python."""
    (tmp_path / "launch").mkdir()
    shutil.copy(LAUNCH / "tpu_worker.sh", tmp_path / "launch")
    executable(
        tmp_path / "python",
        '#!/usr/bin/env bash\necho "flags: $*"\n'
        "trap 'echo saved; exit 143' TERM\ntouch started\n"
        'for _ in {1..600}; do [[ -f go ]] && exit "$(<go)"; sleep 0.05; done\n',
    )

    def run(*words, **environment):
        return subprocess.run(
            [tmp_path / "launch/tpu_worker.sh", *words],
            env=os.environ | {"PYTHON": str(tmp_path / "python")} | environment,
            capture_output=True,
            text=True,
            timeout=HANG,
        )

    def end(status):
        # At once as a whole: the fake Python must not read an empty file.
        (tmp_path / "going").write_text(str(status))
        (tmp_path / "going").rename(tmp_path / "go")

    run.folder, run.end = tmp_path, end
    yield run
    end(0)


@pytest.mark.parametrize(("status", "program"), [(0, "train"), (1, "cache")])
def test_worker_works_without_a_terminal_and_keeps_the_status(worker, status, program):
    assert worker("start", program, "--config=a b").returncode == 0
    again = worker("start", program, "--config=a b")
    assert "is at work already" in again.stdout
    worker.end(status)
    for _ in range(2):  # As often as one likes.
        followed = worker("follow")
        assert followed.returncode == status
        expected = f"flags: -m musilingo_jax.{program} --distributed --config=a b"
        assert expected in followed.stdout
    assert len(list((worker.folder / "runs/logs").iterdir())) == 1


def test_worker_stops_in_order(worker):
    assert "nothing is running" in worker("stop").stdout
    worker("start", "train")
    while not (worker.folder / "started").exists():
        time.sleep(0.02)
    assert worker("stop").returncode == 0
    followed = worker("follow")
    assert followed.returncode == 143
    assert "saved" in followed.stdout


def test_worker_installs_what_is_missing_and_no_more(worker):
    home, tools = worker.folder / "home", worker.folder / "tools"
    (home / "bucket").mkdir(parents=True)
    (worker.folder / ".venv/bin").mkdir(parents=True)
    executable(worker.folder / ".venv/bin/python", "#!/bin/sh\n")
    tools.mkdir()
    for name in ("gcsfuse", "gcloud", "uv", "mountpoint"):
        # Mounted is what was mounted; in the bucket there are models and no corpora.
        executable(
            tools / name,
            f'#!/usr/bin/env bash\necho "{name} $*" >>{tools}/calls\n'
            f"[[ {name} != mountpoint ]] || exec grep -q gcsfuse {tools}/calls\n"
            f'[[ "{name} $*" != "gcloud storage ls"*corpora* ]]\n',
        )
    (home / ".local/bin").mkdir(parents=True)
    (tools / "uv").rename(home / ".local/bin/uv")
    environment = {"HOME": str(home), "PATH": f"{tools}:{os.environ['PATH']}"}
    for _ in range(2):
        done = worker("install", "gs://mine", **environment)
        assert done.returncode == 0, done.stderr
    calls = (tools / "calls").read_text().splitlines()
    once = [call for call in calls if call.startswith("gcsfuse")]
    assert once == [
        "gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0"
        f" --metadata-cache-negative-ttl-secs=0 mine {home}/bucket"
    ]
    assert "gcloud storage rsync gs://mine/models models --recursive" in calls
    assert not [call for call in calls if "rsync" in call and "corpora" in call]
    locked = "-r requirements.lock --editable .[tpu,gcs]"
    assert sum(call.endswith(locked) for call in calls) == 2
    # What a run writes is in the bucket.
    (worker.folder / "runs/written").write_text("")
    assert (home / "bucket/runs/written").exists()


def test_worker_without_work_says_so(worker):
    followed = worker("follow")
    assert followed.returncode == 1
    assert "nothing was started here" in followed.stderr
