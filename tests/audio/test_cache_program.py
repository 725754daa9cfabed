"""`python -m musilingo_jax.cache`: killed, as two processes, as a job array."""

import os
import socket
import subprocess
import sys
from dataclasses import asdict

import pytest
from helpers import programs
from helpers.processes import free_port
from helpers.small_cache import FEATURES, files, write_songs

from musilingo_jax.pretrained import weights

pytestmark = pytest.mark.medium

CONFIG = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict({values})
"""
# Before each file gets its name, and after that, the program waits for the disk.
KILLED = """
import os, signal
from musilingo_jax.runtime import storage

sync, waits = storage.sync, 0

def killed(path):
    global waits
    waits += 1
    if waits == {moment}:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(path)

storage.sync = killed
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory, mert):
    """A corpus with a bad song, a config, and what one process makes of it."""
    folder = tmp_path_factory.mktemp("job")
    write_songs(folder / "songs", 20)
    (folder / "songs/04.wav").write_bytes(b"no sound at all")
    weights.save_encoder(mert, folder / "encoder", dtype="float32")
    values = {
        "model": {"encoder": str(folder / "encoder"), "dtype": "float32"},
        "corpus": {"path": str(folder / "songs/songs.jsonl")},
        "features": {
            **asdict(FEATURES),
            "chunk_windows": 1,
            "cache": str(folder / "whole"),
            "shard_clips": 3,
            "allow_missing": False,
        },
        "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
    }
    (folder / "config.py").write_text(CONFIG.format(values=values))
    done = run(folder, "whole")
    assert done.returncode == 1, done.stderr
    assert "error: 1 of 20 songs cannot be read" in done.stderr
    assert "04.wav: " in done.stderr
    assert "19 clips, 0.01 h" in done.stdout and "1 skipped\n" in done.stdout
    return folder


def flags_of(folder, name):
    return [
        f"--config={folder / 'config.py'}",
        f"--config.features.cache={folder / name}",
    ]


def run(folder, name, *flags, prelude=""):
    arguments = [*flags_of(folder, name), *flags]
    return programs.run("cache", *arguments, prelude=prelude)


def finished(folder):
    """Notes of shards, with what would change if they were made again."""
    notes = folder.glob("0*.json")
    return {path.name: path.stat().st_mtime_ns for path in notes}


# The plan takes two waits, a shard two for its records and two for its note. So this
# kills the program in the midst of the plan; of the records of shard 1, when shard 0
# has been finished; of shard 2, between the records and the note; of the note of 3.
MOMENTS = [(1, 0), (7, 1), (6, 2), (7, 3)]


def test_killed_at_any_moment_it_continues_to_the_same_files(job):
    folder, before = job / "killed", {}
    for moment, notes in MOMENTS:
        done = run(job, "killed", prelude=KILLED.format(moment=moment))
        assert done.returncode == -9, done.stderr
        assert list(folder.rglob("*.partial")) or moment == 6
        kept = finished(folder)
        assert len(kept) == notes and before.items() <= kept.items()
        before = kept
    # Half a shard, as a kill in the middle of a write leaves it.
    dead = subprocess.Popen(["true"])
    dead.wait()
    half = f"00000006.array_record.{socket.gethostname()}-{dead.pid}.partial"
    (folder / half).write_bytes(b"half")
    done = run(job, "killed", "--allow_missing")
    assert done.returncode == 0, done.stderr
    assert kept.items() <= finished(folder).items()
    assert files(folder) == files(job / "whole")


def test_two_processes_of_one_program_make_the_same_files(job):
    where = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    both = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "musilingo_jax.cache"),
                *flags_of(job, "both"),
                *where,
                f"--process={process}",
            ],
            cwd=programs.ROOT,
            env=os.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in (0, 1)
    ]
    outputs = [process.communicate() for process in both]
    for process, (_, err) in zip(both, outputs, strict=True):
        assert process.returncode == 1 and "1 of 20 songs cannot be read" in err, err
    assert "19 clips" in outputs[0][0] and "clips" not in outputs[1][0]
    assert files(job / "both") == files(job / "whole")


def test_tasks_of_a_job_array_and_wrong_flags(job):
    task = run(job, "array", "--task=1", "--tasks=2")
    # The song that cannot be read is in shard 1.
    assert task.returncode == 1 and "1 of 9 songs cannot be read" in task.stderr
    assert "task 1 of 2 is done; 3 of 7 shards are finished" in task.stdout
    counted = run(job, "array", "--task=2", "--tasks=2")
    assert counted.returncode == 2 and "must be from 0 to 1" in counted.stderr
    retried = run(job, "array", "--retry", "--tasks=2")
    assert retried.returncode == 2
    assert "start it once, without --tasks" in retried.stderr
