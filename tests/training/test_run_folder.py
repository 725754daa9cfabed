"""A run folder that is damaged, gone, full, not shared or of another run is named."""

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest
from helpers.processes import free_port
from helpers.small_run import load_config
from ml_collections import ConfigDict

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import setting
from musilingo_jax.training import run_folder
from musilingo_jax.training.run_folder import RunFolder
from musilingo_jax.training.stage_config import StageConfig

pytestmark = pytest.mark.medium

ROW = b'{"stage": "a", "step": 1, "time": 2.0, "loss": 3.0}'


def open_run(path):
    return RunFolder(ConfigDict({"run": str(path), "stages": ("a",)}))


@pytest.fixture
def run(tmp_path):
    return open_run(tmp_path / "jazz")


def test_where_no_folder_can_be_made():
    with pytest.raises(UserError, match=r"to /proc/foo \(no folder can be made there"):
        open_run("/proc/foo")


@pytest.mark.parametrize(
    "line", [b"[1, 2]", b'{"a": 1}', b"\xff\xfe", b"no JSON", ROW[:20]]
)
def test_a_damaged_row_is_named_and_a_torn_last_one_forgotten(run, line):
    metrics = run.path / "metrics.jsonl"
    metrics.write_bytes(ROW + b"\n" + ROW + b"\n" + line)
    assert [row["step"] for row in run.metrics("a")] == [1, 1]
    run.rewind("a", 1)
    assert metrics.read_bytes() == 2 * (ROW + b"\n")
    metrics.write_bytes(ROW + b"\n" + line + b"\n" + ROW + b"\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: is damaged"):
        run.metrics("a")
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: is damaged"):
        run.rewind("a", 1)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_that_an_editor_has_saved_are_the_same(run, end):
    metrics = run.path / "metrics.jsonl"
    lines = [ROW.decode(), "", ROW.decode(), "", ""]
    metrics.write_text("\ufeff" + end.join(lines), newline="")
    assert [row["step"] for row in run.metrics("a")] == [1, 1]
    run.rewind("a", 1)
    assert metrics.read_bytes() == 2 * (ROW + b"\n")


@pytest.mark.parametrize("content", ["[]", "null", "{"])
def test_damaged_inputs_are_named(run, content):
    run.claim({"records": "x"})
    (run.path / "a/checkpoints/1").mkdir(parents=True)
    run.claim({"records": "x"})
    (run.path / "inputs.json").write_text(content)
    with pytest.raises(UserError, match=r"inputs\.json: .* this run cannot be resumed"):
        run.claim({"records": "x"})


def test_a_folder_that_is_gone_is_named(run):
    shutil.rmtree(run.path)
    with pytest.raises(UserError, match=r"jazz: was moved or deleted while"):
        run.log({"stage": "a"})


def test_a_full_disk_is_named_whoever_finds_it(run, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_folder, "write_text", fail)
    with pytest.raises(UserError, match=r"jazz: there is no space left \(No space"):
        run.write("a.json", "{}")
    with (
        pytest.raises(UserError, match=r"jazz: there is no space left \(No space"),
        run_folder.writing(run.path),
    ):
        raise ValueError("UNKNOWN: Failed to write 9 bytes [os_error_code='28']")
    with pytest.raises(ValueError, match="a bug"), run_folder.writing(run.path):
        raise ValueError("a bug")


@dataclass(frozen=True)
class LaterStage(StageConfig):
    """The settings of a stage in a later version, which has one more."""

    policy: str = setting(choices=("full", "dots"), before="full")


def small(path, **stage):
    config = load_config("tiny").get_config()
    config.run, config.stages = str(path), ("stage1",)
    with config.unlocked():
        config.stage1.update(stage)
    return config


@pytest.fixture
def stopped(tmp_path):
    """A function that leaves a checkpoint of a run with such a stage."""

    def stop(**stage):
        RunFolder(small(tmp_path / "run", **stage)).claim({})
        (tmp_path / "run/stage1/checkpoints/1").mkdir(parents=True)
        return tmp_path / "run"

    return stop


@pytest.mark.parametrize("added", [{}, {"policy": "full"}])
def test_a_run_from_before_a_setting_existed_resumes(stopped, monkeypatch, added):
    run = stopped()
    monkeypatch.setattr(run_folder, "StageConfig", LaterStage)
    RunFolder(small(run, **added)).claim({})
    with pytest.raises(UserError, match=r"differs in stage1\.policy: choose another"):
        RunFolder(small(run, policy="dots")).claim({})


def test_a_run_of_today_resumes_with_a_config_from_before_a_setting_existed(
    stopped, monkeypatch
):
    run = stopped(policy="full")
    monkeypatch.setattr(run_folder, "StageConfig", LaterStage)
    RunFolder(small(run)).claim({})


def test_a_setting_without_a_before_makes_another_run(stopped):
    run = stopped()
    with pytest.raises(UserError, match=r"differs in stage1\.policy: choose another"):
        RunFolder(small(run, policy="full")).claim({})


def test_a_config_from_before_a_setting_existed_is_read():
    config = load_config("tiny").get_config()
    assert LaterStage.from_config(config, "stage1").policy == "full"
    assert StageConfig.from_config(config, "stage1").steps == config.stage1.steps


PROGRAM = """
import sys
from ml_collections import ConfigDict
from musilingo_jax.runtime import cli, distributed
from musilingo_jax.training.run_folder import RunFolder

def main(argv):
    distributed.start()
    RunFolder(ConfigDict({"run": argv[1], "stages": ()}))

distributed.define_flags()
cli.run(main)
"""


@pytest.mark.parametrize("shared", [True, False])
def test_all_processes_must_see_one_folder(tmp_path, shared):
    """Folders of other names stand for disks of their own."""
    folders = [tmp_path / ("a" if shared else name) for name in "ab"]
    where = f"--coordinator=127.0.0.1:{free_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, where, "--processes=2"]
            + [f"--process={i}", str(folder)],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, folder in enumerate(folders)
    ]
    outputs = [process.communicate()[1] for process in processes]
    message = "process 1 does not see the folder"
    for process, words in zip(processes, outputs, strict=True):
        assert process.returncode == (0 if shared else 1), words
        assert (message in words) != shared
        assert "Traceback" not in words
    assert not [path for folder in folders for path in folder.iterdir()]
