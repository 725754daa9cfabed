"""A failure of the machine is one sentence, whatever a library has made of it."""

import errno
import os

import numpy as np
import pytest
from helpers import programs

from musilingo_jax.plan import tpu_slices
from musilingo_jax.runtime import failures, platforms, storage
from musilingo_jax.runtime.errors import UserError


def caused(error, cause):
    error.__cause__ = cause
    return error


FULL = [
    OSError(errno.ENOSPC, "No space left on device", "a/b"),
    OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    OSError(errno.EFBIG, os.strerror(errno.EFBIG)),
    # ArrayRecord, TensorStore, pyarrow and libraries that wrap an error twice.
    RuntimeError("Failed to finalize writing: No space left on device; write failed"),
    ValueError("Error writing [os_error_code='28'] [source locations='kvstore']"),
    OSError("[Errno 28] Error writing bytes to file. Detail: No space left on device"),
    caused(RuntimeError("split"), OSError(errno.ENOSPC, "full")),
    caused(ValueError("checkpoint"), caused(RuntimeError(), OSError(errno.ENOSPC, ""))),
    ExceptionGroup("threads", [KeyError("a"), OSError(errno.ENOSPC, "full")]),
]


@pytest.mark.parametrize("error", FULL, ids=repr)
def test_a_full_disk_is_found_in_whatever_a_library_raises(error):
    with (
        pytest.raises(
            UserError, match=r"^runs/a: there is no space left \(.*try again$"
        ),
        storage.writing("runs/a", again="try again"),
    ):
        raise error
    assert isinstance(failures.explain(error), UserError)


def test_a_read_only_disk_is_found_too():
    error = caused(RuntimeError("split"), OSError(errno.EROFS, "read-only", "x"))
    with (
        pytest.raises(UserError, match=r"cannot be written \(Read-only file system\)"),
        storage.writing("runs/a", again="try again"),
    ):
        raise error
    assert "Read-only file system" in str(failures.explain(error))


BUGS = [
    KeyError("a"),
    # That a file does not exist may be part of what led to a bug.
    caused(TypeError("a bug"), FileNotFoundError(errno.ENOENT, "no", "config.json")),
    FileNotFoundError(errno.ENOENT, "no such file", "config.json"),
]


@pytest.mark.parametrize("error", BUGS, ids=repr)
def test_bugs_stay_bugs(error):
    assert failures.explain(error) is None
    assert platforms.failure(error) is None


def test_an_error_that_is_explained_already_is_kept():
    explained = UserError("song.wav: No space left on device")
    with (
        pytest.raises(UserError) as raised,
        storage.writing("runs/a", again="try again"),
    ):
        raise explained
    assert raised.value is explained


def test_too_little_memory_is_one_sentence():
    with pytest.raises(MemoryError) as raised:
        np.zeros(2**62, np.int8)
    for error in (
        raised.value,
        caused(ValueError("loading"), MemoryError()),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore"),
    ):
        text = str(failures.explain(error))
        assert text.startswith("there is not enough memory") and "\n" not in text


PLATFORMS = ["cuda", "gpu", "tpu", "nonsense", "cpu,cuda", "cuda,cpu", " cpu", "cpu,"]


@pytest.mark.parametrize("named", PLATFORMS)
def test_a_platform_that_is_not_here_is_named_before_any_work(tmp_path, named):
    done = programs.run(
        "train",
        "--config=tiny",
        f"--config.run={tmp_path / 'run'}",
        env={"JAX_PLATFORMS": named},
    )
    assert (done.returncode, done.stdout) == (1, "")
    *others, line = done.stderr.splitlines()
    # libtpu, where it is installed, writes of its own that there is no TPU.
    assert not others or (named == "tpu" and tpu_slices.compiler_is_installed())
    assert line.startswith(f"error: JAX_PLATFORMS={named}: JAX has no platform ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("chat", ["musilingo_jax/assets/musilingo-tiny-corpus/clips/00000.ogg"]),
        ("cache", ["--config=features/tiny", "--config.features.cache={}/cache"]),
        ("generate", ["--config=tiny", "--out={}/a.jsonl", "--config.run={}/run"]),
        ("evaluate", ["--config=tiny", "--config.run={}/run"]),
    ],
)
def test_every_program_that_computes_names_it(tmp_path, program, arguments):
    words = [word.format(tmp_path) for word in arguments]
    words += ["--ask=What is the key?"] * (program == "chat")
    done = programs.run(program, *words, env={"JAX_PLATFORMS": "cuda"})
    assert done.returncode == 1
    assert done.stderr.startswith("error: JAX_PLATFORMS=cuda: JAX has no platform ")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has it")
def test_an_output_that_cannot_be_written_is_a_sentence(tmp_path):
    prelude = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
    done = programs.run("train", "--help", prelude=prelude)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "No space left on device" in line
