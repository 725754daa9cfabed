"""TensorBoard's files, Weights & Biases and traces of a run."""

import errno
import json
import os
import struct
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict
from tensorboardX.proto.event_pb2 import Event

from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.training.profiler import Profiler
from musilingo_jax.training.run_folder import RunFolder
from musilingo_jax.training.trackers import Trackers


@pytest.fixture
def run(tmp_path):
    return RunFolder(ConfigDict({"run": str(tmp_path / "jazz"), "stages": ("a", "b")}))


def row(step, **values):
    return {"stage": "a", "step": step, "time": 1000.0 + step, **values}


def points(folder):
    """(tag, step, value, time) of all event files, in order.

    A record is its length in 8 bytes, a checksum of that in 4, itself, and another 4.
    """
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]
            for value in event.summary.value:
                point = value.tag, event.step, value.simple_value, event.wall_time
                found.append(point)
    return found


def test_no_point_is_doubled_when_a_stage_resumes(run):
    with Trackers(run, "") as tracker:
        tracker.begin("a", [], earlier_steps=0)
        for step in (1, 2, 3):
            tracker.log(row(step, loss=step / 4))
    with Trackers(run, "") as tracker:
        tracker.begin("a", [row(1, loss=0.25), row(2, loss=0.5)], earlier_steps=0)
        tracker.log(row(3, loss=0.75))
        tracker.log(row(3, validation_loss=2.0))
        tracker.begin("b", [], earlier_steps=3)
    assert points(run.path / "tensorboard/a") == [
        ("loss", 1, 0.25, 1001.0),
        ("loss", 2, 0.5, 1002.0),
        ("loss", 3, 0.75, 1003.0),
        ("validation_loss", 3, 2.0, 1003.0),
    ]
    assert points(run.path / "tensorboard/b") == []


def test_a_full_disk_is_reported_at_once(run, monkeypatch):
    def fail(event):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Trackers(run, "") as tracker:
        tracker.begin("a", [], earlier_steps=0)
        monkeypatch.setattr(tracker._board, "write_event", fail)
        with pytest.raises(UserError, match=r"jazz: there is no space left"):
            tracker.log(row(1, loss=1.0))


class StandIn:
    """For the module `wandb`: remembers what it is given."""

    def __init__(self):
        self.step, self.rows, self.begun, self.ended = 0, [], [], []

    def init(self, **options):
        self.begun.append(options)
        return self

    def log(self, values, step):
        self.rows.append((step, values))
        self.step = step + 1

    def finish(self, exit_code):
        self.ended.append(exit_code)


def test_weights_and_biases_gets_each_row_of_all_stages_once(run, monkeypatch):
    wandb = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with Trackers(run, "music") as tracker:
        tracker.begin("a", [], earlier_steps=0)
        tracker.log(row(1, loss=4.0))
        tracker.log(row(2, loss=3.0))
    with pytest.raises(UserError), Trackers(run, "music") as tracker:
        # The third row was written, but the program killed before it was sent.
        rows = [row(1, loss=4.0), row(2, loss=3.0), row(3, loss=2.0)]
        tracker.begin("a", rows, earlier_steps=0)
        tracker.begin("b", [], earlier_steps=3)
        tracker.log(row(1, loss=1.0) | {"stage": "b"})
        raise UserError("it ends")
    assert wandb.rows == [
        (1, {"a/loss": 4.0}),
        (2, {"a/loss": 3.0}),
        (3, {"a/loss": 2.0}),
        (4, {"b/loss": 1.0}),
    ]
    first, second = wandb.begun
    assert first == second
    assert (first["project"], first["name"]) == ("music", "jazz")
    assert first["id"] == json.loads((run.path / "wandb.json").read_text())["id"]
    assert wandb.ended == [0, 1]


def test_weights_and_biases_that_is_not_installed(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"'music', but wandb is not installed: pip"):
        Trackers(run, "music")


def test_weights_and_biases_that_refuses(run, monkeypatch):
    def init(**options):
        raise RuntimeError("no API key\nand more")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    with pytest.raises(UserError, match=r"\(no API key\): log in with `wandb login`"):
        Trackers(run, "music")


@pytest.mark.parametrize("updates", ["3", "0:2", "2:0", "a:b", "-1:2"])
def test_a_profile_of_anything_else_is_refused(updates, tmp_path):
    with pytest.raises(UsageError, match="must be FIRST:COUNT"):
        Profiler(updates, tmp_path)


def test_a_profile_is_of_the_updates_it_names(tmp_path, monkeypatch, capsys):
    calls = []
    profiler = "musilingo_jax.training.profiler.jax.profiler"
    monkeypatch.setattr(f"{profiler}.start_trace", lambda to: calls.append("start"))
    monkeypatch.setattr(f"{profiler}.stop_trace", lambda: calls.append("stop"))
    with Profiler("2:2", tmp_path) as profile:
        for update in (1, 2, 3, 4):
            profile.begin(jnp.zeros(()))
            calls.append(update)
            profile.end(jnp.zeros(()))
    assert calls == [1, "start", 2, 3, "stop", 4]
    assert capsys.readouterr().err == f"trace: {tmp_path}\n"


def test_a_profile_of_later_updates_says_so(tmp_path, capsys):
    with Profiler("9:2", tmp_path) as profile:
        profile.begin(jnp.zeros(()))
        profile.end(jnp.zeros(()))
    assert "training ended before the updates to trace" in capsys.readouterr().err
