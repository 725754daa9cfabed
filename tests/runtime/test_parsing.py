"""Command lines are parsed in every documented form, or refused in one sentence."""

import pytest
from absl import logging
from helpers import programs
from helpers.programs import ROOT

from musilingo_jax.convert import __main__ as convert
from musilingo_jax.runtime.errors import UsageError

pytestmark = pytest.mark.medium

DEFAULTS = {"shard_gb": 5.0, "inspect": None, "json": False}
EXPORT = {"out": "DIR", "command": "export", "format": None}
NO_LORA = {"lora": None, "base": None}


def parsed(*words):
    given = vars(convert.parser().parse(["convert", *words]))
    return {name: value for name, value in given.items() if name != "outputs"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("safetensors FOLDER --out=DIR", {"source": "FOLDER"}),
        ("safetensors --out DIR FOLDER", {"source": "FOLDER"}),
        ("--out=DIR safetensors FOLDER", {"source": "FOLDER"}),
        ("--out DIR safetensors FOLDER", {"source": "FOLDER"}),
        # A value may be the name of a command.
        ("--out DIR split split", {"source": "split"}),
        (
            "merge --base=A --delta=B --out=DIR",
            {"base": "A", "delta": "B", "lora": None, "adapter": None},
        ),
        (
            "--base A --delta B merge --out DIR",
            {"base": "A", "delta": "B", "lora": None, "adapter": None},
        ),
        ("split A --out=DIR --shard_gb 0.5", {"source": "A", "shard_gb": 0.5}),
        (
            "adapter checkpoint_4.pth --out=DIR",
            {"source": "checkpoint_4.pth", "window_frames": None} | NO_LORA,
        ),
        (
            "adapter --window_frames 10 x.pth --out=DIR",
            {"source": "x.pth", "window_frames": 10} | NO_LORA,
        ),
    ],
)
def test_flags_are_read_before_and_after_arguments_and_in_both_forms(line, expected):
    command = next(word for word in line.split() if word in CONVERSIONS)
    assert parsed(*line.split()) == (
        DEFAULTS | {"out": "DIR", "command": command} | expected
    )


CONVERSIONS = ("safetensors", "merge", "split", "adapter", "export")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("export RUN --out=DIR", {"source": "RUN"}),
        ("export --out DIR RUN", {"source": "RUN"}),
        ("export --adapter=RUN --out=DIR", {"adapter": "RUN"}),
        ("export --adapter A RUN --out DIR", {"adapter": "A", "source": "RUN"}),
        (
            "export RUN --out=DIR --mert_model=a/b --llama_model c/d",
            {"source": "RUN", "mert_model": "a/b", "llama_model": "c/d"},
        ),
        (
            "--encoder=E export --language_model=L --adapter=A --out=DIR",
            {"encoder": "E", "language_model": "L", "adapter": "A"},
        ),
    ],
)
def test_an_export_names_a_whole_model_or_parts(line, expected):
    names = ("source", "encoder", "language_model", "adapter")
    unset = dict.fromkeys((*names, "mert_model", "llama_model"))
    assert parsed(*line.split()) == (DEFAULTS | unset | EXPORT | expected)


@pytest.mark.parametrize(
    "line", ["--inspect A", "--inspect=A", "--inspect A --json", "--json --inspect=A"]
)
def test_a_source_is_inspected_without_a_command(line):
    given = parsed(*line.split())
    assert given == {"command": None, "inspect": "A", "json": "--json" in line}


def test_flags_of_absl_may_stand_anywhere():
    before = logging.get_verbosity()
    try:
        given = parsed("--verbosity", "0", "split", "--verbosity=0", "A", "--out=DIR")
        assert logging.get_verbosity() == logging.INFO
    finally:
        logging.set_verbosity(before)
    assert given["source"] == "A"


# Lines of `cache`, of which absl parses `--config` and its overrides.
@pytest.mark.parametrize(
    "line",
    [
        "--config=features/tiny --task=3 --tasks=16",
        "--task 3 --tasks 16 --config features/tiny",
        "--config=tiny --retry --allow_missing --config.run=elsewhere",
        "--config=tiny --distributed",
        "--config=tiny --coordinator=h:1 --processes=2 --process 0",
        "inspect FOLDER",
        "inspect --config=tiny",
        "--config tiny --config.run x inspect",
        "export FOLDER --out=x.npz",
        "export --out x.npz FOLDER",
        "--out x.npz export FOLDER",
        "export --config=tiny --out=x.npz",
    ],
)
def test_every_form_of_a_cache_command_is_parsed(line):
    done = programs.run("cache", *line.split(), "--only_check_args")
    assert done == (0, "", "")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "--config is missing: name a config"),
        ("inspect", "--config is missing"),
        ("export FOLDER", "the following arguments are required: --out"),
        ("inspect FOLDER more", "unrecognized arguments: more"),
        ("inspect FOLDER --retry", "unrecognized arguments: --retry"),
        ("encode", "invalid choice: 'encode'"),
        ("--config=tiny --tasks=0", "--tasks: 0 is not a positive whole number"),
        ("--config=tiny --tasks=x", "--tasks: x is not a positive whole number"),
        ("--config=tiny --task=2 --tasks=2", "--task must be from 0 to 1"),
        ("--config=tiny --tasks=2 --retry", "--retry makes a new plan"),
        ("--config=tiny --retyr", "unrecognized arguments: --retyr"),
        ("--config=tiny --config.rnu=x", "the config has no key 'rnu'"),
    ],
)
def test_a_wrong_cache_command_is_refused_in_a_sentence(line, message):
    done = programs.run("cache", *line.split())
    assert done.returncode == 2
    (printed,) = done.stderr.splitlines()
    assert printed.startswith("error: ") and message in printed


def test_missing_flags_are_named_in_one_sentence():
    done = programs.run("recipes.render", "--out=x", "--seed=1")
    assert done == (
        2,
        "",
        "error: --clips, --soundfont, --seconds must be given (try --help)\n",
    )


def test_an_empty_value_is_refused():
    with pytest.raises(UsageError, match=r"--out: is empty \(try .* split --help\)"):
        parsed("split", "A", "--out=")


@pytest.fixture
def config(tmp_path):
    """Runs `train` with a config that consists of some lines."""

    def run(*lines, flags=()):
        path = tmp_path / "mine.py"
        path.write_text("\n".join(lines))
        done = programs.run("train", f"--config={path}", *flags)
        assert done.returncode == 2
        (printed,) = done.stderr.splitlines()
        printed = printed.removeprefix("error: ").removeprefix("flag ")
        return printed.replace(str(path), "mine.py").removeprefix("--config")

    return run


IMPORT = "from ml_collections import ConfigDict"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["x = 1", "def get_config(:"], ": mine.py:2 is not valid Python (invalid"),
        (["x = '\0'"], ": mine.py is not valid Python (source code string cannot"),
        (["x = 1"], ": mine.py has no function get_config"),
        (["", "import nowhere"], ": mine.py:2 raised ModuleNotFoundError: No module"),
        (["def get_config():", "  return {}['a']"], ": mine.py:2 raised KeyError: 'a'"),
        (["def get_config():", "  return [].a"], ": mine.py:2 raised AttributeError"),
        (
            ["def get_config():", "  return int('x')"],
            ": mine.py:2 raised ValueError: invalid literal",
        ),
        (["def get_config():", "  return 1 + ''"], ": mine.py:2 raised TypeError"),
        (["def get_config():", "  return 1 / 0"], ": mine.py:2 raised ZeroDivision"),
        (
            ["def get_config():", "  return {}"],
            "=mine.py: get_config returned an object of type dict; it must return a",
        ),
        (
            [IMPORT, "def get_config():", "  return ConfigDict()"],
            "=mine.py: the config lacks seed, run, stages, corpus, features, model",
        ),
        (
            [IMPORT, "def get_config():", "  return ConfigDict({'run': 'x'})"],
            "=mine.py: the config lacks seed, stages, corpus",
        ),
    ],
)
def test_a_broken_config_is_refused_with_its_line(config, lines, message):
    assert config(*lines).startswith(message)


def test_a_config_that_cannot_be_read_is_refused():
    done = programs.run("train", "--config=/proc/self/mem")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --config=/proc/self/mem: cannot be read (Input/output error)\n"
    )


def test_an_override_of_a_wrong_type_is_refused(config):
    lines = [IMPORT, "def get_config():", "  return ConfigDict({'seed': 1})"]
    printed = config(*lines, flags=["--config.seed=x"])
    assert (
        printed == ".seed=x: invalid literal for int() with base 10: 'x' (try --help)"
    )


def test_a_config_is_found_by_name_from_any_folder(tmp_path):
    for line in (["--config=tiny"], ["--config", "configs/tiny.py"]):
        done = programs.run("train", *line, "--only_check_args", cwd=tmp_path)
        assert done == (0, "", "")
    done = programs.run("train", "--config=tinny", cwd=ROOT)
    assert done.returncode == 2
    assert "there is no file 'tinny' and no config of that name" in done.stderr


@pytest.mark.parametrize(
    ("program", "line", "flag"),
    [
        ("train", "--config=tiny --config=configs/own_songs.py", "config"),
        ("train", "--config tiny --config.run=a --config.run b", "config.run"),
        ("generate", "--config=tiny --out=a --out=b", "out"),
        ("generate", "--config=tiny --distributed --nodistributed", "distributed"),
        ("cache", "--config=tiny --tasks=2 --task=0 --task=1", "task"),
        ("cache", "export A --out=a.npz --out=b.npz", "out"),
        ("chat", "a.ogg --seconds=3 --seconds 4", "seconds"),
    ],
)
def test_a_flag_with_two_values_is_refused(program, line, flag):
    done = programs.run(program, *line.split())
    assert done.returncode == 2
    (printed,) = done.stderr.splitlines()
    assert printed.startswith(f"error: --{flag} is given twice, as ")


def test_a_flag_may_be_repeated_with_one_value(tmp_path):
    for line in ("--config=tiny --config tiny", "--distributed --distributed=true"):
        line += " --config=tiny --only_check_args"
        assert programs.run("train", *line.split()) == (0, "", "")


@pytest.mark.parametrize(
    ("program", "line", "message"),
    [
        ("train", "--config=tiny --connect_seconds=9", "--connect_seconds is for sev"),
        ("cache", "inspect A --config=tiny", "A and --config both name a cache"),
        ("cache", "export A --config=tiny --out=x.npz", "both name a cache"),
        ("cache", "inspect A --distributed", "--distributed is for encoding, not for"),
        ("plan", "--config=tiny --topology=v5e-8 --search_minutes=3", "add --search"),
        (
            "plan",
            "--config=tiny --topology=v5e-8,v5litepod-8",
            "v5e-8 twice: name each",
        ),
    ],
)
def test_a_flag_that_would_not_be_used_is_refused(program, line, message):
    done = programs.run(program, *line.split())
    assert done.returncode == 2
    (printed,) = done.stderr.splitlines()
    assert printed.startswith("error: ") and message in printed
