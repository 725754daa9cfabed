"""What is known of a file or folder before it is opened or written."""

import os
from pathlib import Path

import pytest

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import (
    check_writable_file,
    check_writable_folder,
    stat_regular_file,
)


def test_what_can_be_written_is_left_as_it_is(tmp_path):
    there = tmp_path / "there.jsonl"
    there.write_text("kept")
    check_writable_file(there, flag="--out")
    check_writable_file(tmp_path / "deep/er/new.jsonl", flag="--out")
    check_writable_folder(tmp_path, flag="--out")
    check_writable_folder(tmp_path / "deep/er", flag="--out")
    assert list(tmp_path.iterdir()) == [there] and there.read_text() == "kept"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "is a folder: name a file in it"),
        ("text.mp3/x.jsonl", r"text.mp3: Not a directory\): name another place"),
        ("text.mp3/deep/x.jsonl", "Not a directory"),
        ("/proc/x.jsonl", "/proc: No such file"),
        ("/dev/null", "is not a regular file"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_file_that_cannot_be_written(tmp_path, path, message):
    (tmp_path / "text.mp3").write_text("la la la")
    with pytest.raises(UserError, match=message) as refused:
        check_writable_file(tmp_path / path, flag="--json")
    assert str(refused.value).startswith(f"--json={tmp_path / path} ")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("path", ["text.mp3", "text.mp3/deep", "/proc/deep"])
def test_a_folder_that_cannot_be_written_into(tmp_path, path):
    (tmp_path / "text.mp3").write_text("la la la")
    with pytest.raises(UserError, match="--out=.* cannot be written"):
        check_writable_folder(tmp_path / path, flag="--out")


def test_only_regular_files_have_a_status(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    assert stat_regular_file(tmp_path / "file").st_size == 3
    assert stat_regular_file(tmp_path / "link").st_size == 3
    with pytest.raises(IsADirectoryError, match="is a folder"):
        stat_regular_file(tmp_path)
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(OSError, match="is not a regular file"):
            stat_regular_file(path)
    with pytest.raises(FileNotFoundError):
        stat_regular_file(tmp_path / "none")
