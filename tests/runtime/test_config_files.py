"""A config file may do and return anything; what is wrong is one sentence, status 2."""

import os

import pytest
from helpers import programs

IMPORT = "from ml_collections import ConfigDict, FrozenConfigDict, config_dict\n"
RETURN = IMPORT + "def get_config(arg=''): return "
WHOLE = (
    "ConfigDict(dict(run='r', seed=0, wandb='', stages=('a',), features={}, model={}, "
    "generate={}, mesh=dict(data=1, fsdp=1, tensor=1), corpus=dict(path='c', "
    "train_split='', validation_split='', test_split=''), a={}) | {CHANGE})"
)
# Program → arguments besides the config.
PROGRAMS = {
    "train": (),
    "generate": ("--out={}/answers.jsonl",),
    "evaluate": (),
    "cache": (),
    "plan": ("--topology=v5e-8",),
}


def messages(tmp_path, text, names=tuple(PROGRAMS)):
    """The sentence that each program prints about a config, without its path."""
    path = tmp_path / "mine.py"
    path.write_text(text)
    printed = {}
    for name in names:
        arguments = [argument.format(tmp_path) for argument in PROGRAMS[name]]
        done = programs.run(name, f"--config={path}", *arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, ""), done
        last = done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
        printed[name] = last.removeprefix("error: ").replace(str(path), "mine.py")
    assert os.listdir(tmp_path) == ["mine.py"]
    return printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RETURN + "None", "get_config returned None; it must return a ConfigDict"),
        (RETURN + "{'run': 'x'}", "get_config returned an object of type dict"),
        (RETURN + "FrozenConfigDict()", "an object of type FrozenConfigDict"),
        ("get_config = 3", "cannot be used (TypeError: 'int' object is not callable)"),
        ("import sys\nsys.exit(3)", "mine.py:2 raised SystemExit: 3"),
        ("import sys\nsys.exit()", "mine.py:2 raised SystemExit"),
        (RETURN + "exit(4)", "mine.py:2 raised SystemExit: 4"),
        ("class E(BaseException): pass\nraise E('x')", "mine.py:2 raised E: x"),
        (
            "class E(Exception):\n    def __str__(self): return 1 / 0\nraise E",
            "mine.py:3 raised E: its text cannot be made: ZeroDivisionError",
        ),
        ("def get_config(): return get_config()", "mine.py:1 raised RecursionError"),
        (
            RETURN + "ConfigDict({'run': config_dict.required_placeholder(str)})",
            "a required value is not set",
        ),
    ],
)
def test_what_a_file_does_or_returns_instead_is_named(tmp_path, text, message):
    for printed in messages(tmp_path, text).values():
        assert message in printed


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_section_that_is_missing_is_named(tmp_path, name):
    (printed,) = messages(tmp_path, RETURN + "ConfigDict({'a': 1})", [name]).values()
    assert printed.startswith("--config=mine.py: the config lacks ")
    assert "mesh" in printed and "configs/tiny.py" in printed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("'stages': 3", "config.stages is 3: it must be a list, each entry text"),
        ("'stages': ['a', ['b']]", "config.stages is ('a', ['b']): it must be a list"),
        ("'corpus': 3", "config.corpus is 3: it must be a section with keys"),
        ("'corpus': {}", "config.corpus lacks path"),
        ("'corpus': {'path': 7}", "config.corpus.path is 7: it must be text"),
        ("'corpus': {'path': '', 'pth': 1}", "config.corpus has pth, which nothing"),
        ("'features': [1]", "config.features is (1,): it must be a section with keys"),
        ("'model': 'x'", "config.model is 'x': it must be a section with keys"),
        ("'model': None", "config.model is None: it must be a section with keys"),
        ("'mesh': {'data': 1, 'fsdp': 1}", "config.mesh lacks tensor"),
        ("'seed': 'x'", "config.seed is 'x': it must be a whole number"),
        ("'seed': 2**64", "it must be a whole number below 2**63"),
        ("'run': 7", "config.run is 7: it must be text"),
        ("'run': 'a\\0b'", "config.run is 'a\\x00b': it must be text"),
        ("'wandb': None", "config.wandb is None: it must be text"),
        ("'run': config_dict.required_placeholder(str)", "a required value is not set"),
    ],
)
def test_a_value_of_another_kind_is_named(tmp_path, change, message):
    text = RETURN + WHOLE.replace("CHANGE", change)
    (printed,) = messages(tmp_path, text, ["train"]).values()
    assert message in printed


def test_what_is_not_a_file_of_a_usual_size_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    with (tmp_path / "large.py").open("wb") as file:
        file.truncate(10**9)
    expected = {
        "pipe.py": "is not a regular file",
        "folder.py": "is a folder",
        "large.py": "1,000,000,000 bytes",
        "long" * 100: "File name too long",
        "/dev/zero": "is not a regular file",
    }
    for name, message in expected.items():
        done = programs.run("train", f"--config={name}", cwd=tmp_path)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: --config=") and message in line
