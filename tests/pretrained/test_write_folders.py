"""Folders appear complete or not at all, and replace nothing."""

import errno
import os
import shutil
from collections import namedtuple
from dataclasses import replace

import pytest
from helpers.model_folders import TINY, assert_equal, read, write

from musilingo_jax.convert import musilingo_releases
from musilingo_jax.pretrained import model_folder, write_folders
from musilingo_jax.runtime.errors import UserError


def test_a_folder_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    (plan,) = musilingo_releases.export_adapter(TINY)
    out, partial = tmp_path / "deep" / "out", tmp_path / "deep" / "out.partial"
    for error in (UserError("broken"), KeyboardInterrupt(), ValueError("bug")):

        def fail(error=error):
            raise error

        last = replace(plan.pieces["llama_proj.bias"], read=fail)
        broken = replace(plan, pieces=plan.pieces | {"llama_proj.bias": last})
        with pytest.raises(type(error)):
            write([broken], out)
        assert not out.exists() and not partial.exists()
    partial.mkdir(parents=True)  # Left behind by a kill.
    (partial / write_folders._MARK).touch()
    (partial / "encoder").mkdir()
    (partial / "model.safetensors.partial").write_text("half")
    out.mkdir()
    write([plan], out)
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}
    assert not partial.exists()
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(
        UserError, match="already exists and is not empty; choose another --out"
    ):
        write([plan], out)
    with pytest.raises(UserError, match="already exists and is not empty"):
        write([plan], out / "config.json")
    assert (out / "model.safetensors").read_bytes() == before
    with pytest.raises(UserError, match="cannot be written"):
        write([plan], out / "config.json" / "below")
    full = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(UserError, match=r"needs 0.07 GB, 68 MB more than"):
        write([plan], tmp_path / "full")
    assert not (tmp_path / "full").exists()


def test_out_may_be_a_link(tmp_path):
    plan = musilingo_releases.export_adapter(TINY)
    (tmp_path / "real").mkdir()
    for name, target in {"full": "real", "dangling": "there/below"}.items():
        link = tmp_path / name
        link.symlink_to(tmp_path / target)
        write(plan, link)
        assert link.is_symlink()
        assert (tmp_path / target / "config.json").is_file()
        with pytest.raises(UserError, match="already exists and is not empty"):
            write(plan, link)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(UserError, match="circle: "):
        write(plan, tmp_path / "circle")
    assert not list(tmp_path.rglob("*.partial"))


def test_what_is_finished_is_kept(tmp_path, monkeypatch):
    plan, out = musilingo_releases.export_adapter(TINY), tmp_path / "out"

    rename = type(tmp_path).replace

    def busy(path, target):
        if target == out:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "replace", busy)
        with pytest.raises(
            UserError, match=r"is complete, .*busy.*out.partial: rename it"
        ):
            write(plan, out)
    partial = tmp_path / "out.partial"
    assert_equal(read(partial), read(model_folder.resolve(TINY) / "adapter"))
    assert {p.name for p in partial.iterdir()} == {"config.json", "model.safetensors"}
    with pytest.raises(UserError, match="it is kept; move it, or choose another --out"):
        write(plan, out)
    assert (partial / "config.json").is_file()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == out)
    with pytest.raises(UserError, match="out: is a mount point.* such as .*out/model"):
        write(plan, out)


def test_what_others_put_where_a_conversion_would_write_stays(tmp_path):
    partial = tmp_path / "out.partial"
    (partial / "folder").mkdir(parents=True)
    (partial / "lock").touch()
    with pytest.raises(UserError, match="exists and is not an unfinished conversion"):
        write(musilingo_releases.export_adapter(TINY), tmp_path / "out")
    assert {path.name for path in partial.iterdir()} == {"folder", "lock"}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("late", [False, True])
def test_a_kill_at_the_very_end_leaves_nothing_to_be_moved(tmp_path, monkeypatch, late):
    """Before the folder gets its name, and before it loses its mark."""
    plan, out = musilingo_releases.export_adapter(TINY), tmp_path / "out"
    rename = type(tmp_path).replace

    class KilledError(BaseException):
        pass

    def killed(path, target=None):
        if path == out or target == out:
            raise KilledError
        return rename(path, target)

    with monkeypatch.context() as patch:
        if late:
            patch.setattr(write_folders, "_unmark", killed)
        else:
            patch.setattr(type(tmp_path), "replace", killed)
        with pytest.raises(KilledError):
            write(plan, out)
    assert out.exists() == late
    if late:
        with pytest.raises(UserError, match="already exists and is not empty"):
            write(plan, out)
    else:
        write(plan, out)
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}
    assert_equal(read(out), read(model_folder.resolve(TINY) / "adapter"))
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("call", ["copyfile", "fsync"])
def test_small_files_fill_the_disk_as_well(tmp_path, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    plan = musilingo_releases.split(TINY)
    monkeypatch.setattr({"copyfile": shutil, "fsync": os}[call], call, full)
    with pytest.raises(UserError, match="no space left"):
        write(plan, tmp_path / "out")
    assert not list(tmp_path.iterdir())
