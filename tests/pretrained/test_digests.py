"""Digests of large files are computed once, and again when a file changes."""

import os
import time

import pytest

from musilingo_jax.pretrained import digests


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file that counts as large and has not been touched for a while."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LARGE", 4)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"abcdef")
    os.utime(path, (time.time() - 100,) * 2)
    return path


def digest(path, *names, of="a"):
    """The digest and whether it was computed."""
    computed = []

    def compute():
        computed.append(True)
        return of * 64

    return digests.remembered(names, [path], compute), bool(computed)


def test_it_is_computed_once(file):
    assert digest(file) == ("a" * 64, True)
    assert digest(file, of="b") == ("a" * 64, False)
    assert digest(file, "another part of it", of="b") == ("b" * 64, True)


def test_a_file_that_changed_is_read_again(file):
    digest(file)
    file.write_bytes(b"ABCDEF")
    os.utime(file, (time.time() - 50,) * 2)
    assert digest(file, of="b") == ("b" * 64, True)


def test_of_a_file_that_changed_just_now_nothing_is_remembered(file):
    os.utime(file)
    assert digest(file) == ("a" * 64, True)
    assert digest(file) == ("a" * 64, True)


def test_a_small_file_is_read_each_time(file, monkeypatch):
    monkeypatch.setattr(digests, "LARGE", 7)
    assert digest(file)[1] and digest(file)[1]


def test_a_home_that_cannot_be_written_does_no_harm(file, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert digest(file) == ("a" * 64, True)


def test_a_damaged_note_is_replaced(file, tmp_path):
    digest(file)
    (note,) = (tmp_path / "cache/musilingo_jax/digests").iterdir()
    note.write_bytes(b"\xff")
    assert digest(file) == ("a" * 64, True)
    assert digest(file) == ("a" * 64, False)
