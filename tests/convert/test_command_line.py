"""Each conversion is run as a user runs it; wrong command lines are refused."""

import json
import math
import os
import re
import shutil
import signal

import pytest
import torch
from helpers import programs
from helpers.lora_folders import factors, write_lora
from helpers.model_folders import TINY, assert_equal, read, write
from safetensors.torch import load_file

from musilingo_jax.convert import __main__ as convert
from musilingo_jax.convert import inspection, musilingo_releases
from musilingo_jax.pretrained import (
    model_config,
    model_folder,
    safetensors_writer,
    sources,
    weights,
    write_folders,
)
from musilingo_jax.runtime import signals
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium


def test_pytorch_files_become_safetensors(tmp_path):
    part = sources.find(TINY, "language_model")
    (tmp_path / "theirs").mkdir()
    for path in write_folders.small_files(part.folder):
        shutil.copy(path, tmp_path / "theirs")
    shutil.copy(part.folder / "config.json", tmp_path / "theirs")
    content = read(part.folder)
    torch.save(content, tmp_path / "theirs" / "pytorch_model.bin")
    out = write(convert.safetensors(str(tmp_path / "theirs")), tmp_path / "ours")
    assert_equal(read(out), content)
    assert len(list(out.glob("model-0000*-of-00003.safetensors"))) == 3
    assert weights.digest(out, "language_model") == weights.digest(
        TINY, "language_model"
    )


def convert_by(*arguments, **flags):
    """Runs `python -m musilingo_jax.convert` as a user does."""
    given = [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in flags.items()
    ]
    return programs.run("convert", *arguments, *given)


def converted(*arguments, **flags):
    """What a successful conversion prints."""
    done = convert_by(*arguments, **flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line(base, delta, tmp_path):
    converted("merge", base=base, delta=delta, out=tmp_path / "merged")
    lora = write_lora(tmp_path / "lora", factors(), base_model_name_or_path=str(base))
    assert "Only its answers" in converted("merge", lora=lora, out=tmp_path / "summed")
    assert read(tmp_path / "summed").keys() == read(base).keys()
    converted("export", TINY, out=tmp_path / "whole")
    converted("split", tmp_path / "whole", out=tmp_path / "parts", shard_gb=0.001)
    assert len(list((tmp_path / "parts/encoder").glob("*.safetensors"))) > 2
    converted("export", adapter=TINY, out=tmp_path / "adapter")
    said = converted("safetensors", base, out=tmp_path / "copy")
    assert_equal(read(tmp_path / "copy"), read(base))
    assert said.endswith("copy: complete\n")


@pytest.mark.parametrize(
    "arguments, flags, pattern",
    [
        (
            [],
            {},
            r"name a conversion \(safetensors, merge, split, adapter, peft, gguf or",
        ),
        (["shrink"], {"out": "x"}, "invalid choice: 'shrink' .*safetensors.*export"),
        (["split", "a"], {}, "arguments are required: --out .*split --help"),
        (["split"], {"out": "x"}, "arguments are required: SOURCE .*split --help"),
        (["split", "a", "b"], {"out": "x"}, "unrecognized arguments: b"),
        (["merge"], {"out": "x", "base": "a"}, "one of the arguments --delta --lora"),
        (["merge"], {"out": "x", "delta": "a"}, "arguments are required: --base"),
        (["split", "a"], {"out": "x", "base": "a"}, "unrecognized arguments: --base=a"),
        (["export"], {"out": "x", "encoder": "a"}, "name all three parts, or the"),
        (["split", "a"], {"out": "x", "json": True}, "unrecognized arguments: --json"),
        (["split", "a"], {"out": "x", "inspect": "y"}, "arguments: --inspect=y"),
        ([], {"inspect": ""}, "--inspect: is empty"),
        (["split", ""], {"out": "x"}, "SOURCE: is empty"),
        (
            ["split", "a"],
            {"out": "x", "window_frames": 5},
            "arguments: --window_frames",
        ),
        (
            ["adapter", "a"],
            {"out": "x", "window_frames": 0},
            "0 is not a positive whole",
        ),
        (["split", "a"], {"out": "x", "mert_model": "a/b"}, "arguments: --mert_model"),
        (
            ["split", "a"],
            {"out": "x", "shard_gb": math.nan},
            "nan is not a finite number",
        ),
        (
            ["split", "a"],
            {"out": "x", "shard_gb": math.inf},
            "inf is not a finite number",
        ),
        (["split", "a"], {"out": "x", "shard_gb": 0}, "--shard_gb: 0 is not a finite"),
        (
            ["export"],
            {"out": "x", "adapter": TINY, "llama_model": "a/b"},
            "an adapter alone does not name other models",
        ),
        (
            ["export", TINY],
            {"out": "x", "format": "pth"},
            "--format=pth is for an adapter alone",
        ),
    ],
)
def test_wrong_command_lines(arguments, flags, pattern):
    done = convert_by(*arguments, **flags)
    assert done.returncode == 2
    assert re.search(f"^error: .*{pattern}", done.stderr)


def test_the_program(tmp_path):
    done = convert_by("split", TINY, out=tmp_path / "parts")
    assert done.returncode == 0, done.stderr
    assert "100%" in done.stderr and "B/s" in done.stderr  # The bar.
    wrong = convert_by("split", TINY, out=tmp_path / "parts")
    assert wrong.returncode == 1 and "Traceback" not in wrong.stderr
    assert "already exists and is not empty" in wrong.stderr
    found = convert_by("--inspect", tmp_path / "parts", json=True)
    assert [*json.loads(found.stdout)["parts"]] == [*model_config.KINDS]


def test_sigterm_leaves_nothing(tmp_path, monkeypatch, capsys):
    before = signal.getsignal(signal.SIGTERM)
    words = ["export", "--adapter", TINY, "--out", str(tmp_path / "out")]
    given = convert.parser().parse(["convert", *words])

    def told(*_):
        assert (tmp_path / "out.partial").exists()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(safetensors_writer.SafetensorsWriter, "write", told)
    # Without a handler of its own the program, here the tests, would be gone.
    signal.signal(signal.SIGTERM, lambda *_: pytest.fail("was not heard"))
    try:
        with pytest.raises(SystemExit) as ended, signals.raise_at_once():
            convert.main(given)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 128 + signal.SIGTERM
    assert "nothing was kept" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_merge_says_how_to_check_it(base, delta, tmp_path):
    said = converted("merge", base=base, delta=delta, out=tmp_path / "merged")
    assert "ask the merged model something" in said
    assert "ask the" not in converted("safetensors", base, out=tmp_path / "copy")


def test_a_file_is_no_folder(tmp_path):
    file = model_folder.resolve(TINY) / "adapter" / "model.safetensors"
    (plan,) = musilingo_releases.adapter(str(file), window_frames=None)
    assert_equal(read(write([plan], tmp_path / "out")), load_file(file))
    for made in (convert.safetensors, musilingo_releases.split, inspection.inspect):
        with pytest.raises(
            UserError, match="model.safetensors: is a file; name the fo"
        ):
            made(str(file))


def test_foreign_names_are_escaped(tmp_path):
    """Names from a download that control a terminal, or that no encoding has."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder.resolve(TINY) / "adapter", folder)
    entry = {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}
    for name in ("\x1b]0;title\x07", "\ud800"):
        header = json.dumps({name: entry}).encode()
        content = len(header).to_bytes(8, "little") + header + bytes(4)
        (folder / "model.safetensors").write_bytes(content)
        shown = name.encode("unicode_escape").decode()
        done = convert_by(inspect=folder)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        assert shown in done.stdout and name not in done.stdout
        done = convert_by("export", adapter=folder, out=tmp_path / "out")
        assert done.returncode == 1
        assert shown in done.stderr and name not in done.stderr
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.pth"])
def test_a_named_pipe_in_place_of_an_adapter_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    done = convert_by("adapter", tmp_path / name, out=tmp_path / "out")
    assert done.returncode == 1
    assert "cannot be read (is not a regular file)" in done.stderr
