"""Every command of the documentation: parsed, or run.

A block of shell commands after `<!-- run -->` is run in a copy of the checkout's
folder, in order, and every command must succeed; after `<!-- run slowly -->` it is run
by the slow tests. All other commands are checked to their last flag by the parser of
what they call. Those that begin with one of `OTHERS` are programs of other people.
"""

import re
import shlex
import subprocess
import sys
import tomllib

import pytest
from helpers import commands
from helpers.programs import ROOT

from musilingo_jax import command

pytestmark = pytest.mark.medium

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "launch/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
BLOCK = re.compile(r"^(<!-- (run(?: slowly)?) -->\n)?```sh\n(.*?)^```", re.M | re.S)
OTHERS = ("gcloud", "mkdir", "openssl", "pre-commit", "source", "tensorboard")
FILLED_IN = {"FOLDER": ".", "DIR": ".", "PROJECT": "mine", "BUCKET": "mine"}


def blocks():
    """(page, how it is run or None, its commands), in order."""
    for page in PAGES:
        for _, how, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            lines = text.replace("\\\n", " ").splitlines()
            lines = [shlex.split(line, comments=True) for line in lines]
            yield page, how, [words for words in lines if words]


COMMANDS = {shlex.join(words): words for _, _, lines in blocks() for words in lines}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=list(COMMANDS))
def test_a_command_can_be_pasted(words):
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    match words:
        case ["python", "-m", module, *_] if module.startswith("musilingo_jax."):
            filled = [word.replace("--config=…", "--config=tiny") for word in words[2:]]
            commands.check([word for word in filled if "…" not in word])
        case ["musilingo", *rest] if (name := command.program_of(rest)) is not None:
            commands.check([f"musilingo_jax.{name}", *rest[1:]])
        case ["musilingo", *rest]:
            command.parser().parse_args(rest)
        case ["python", "-m", "nltk.downloader", "wordnet"]:
            pass
        case ["python", script, *flags]:
            if "--" in flags:
                place = flags.index("--")
                program, *rest = (
                    word.replace("{}", ".") for word in flags[place + 1 :]
                )
                commands.check([f"musilingo_jax.{program}", *rest])
                flags = flags[:place]
            commands.check_script(script, flags)
        case ["bash", script] if not script.startswith("-"):
            assert (ROOT / script).is_file()
        case ["pytest", *arguments]:
            paths = [word for word in arguments if word.endswith(".py")]
            assert paths or "slow" in arguments
            assert all((ROOT / path).is_file() for path in paths)
        case ["pip", "install", *arguments]:
            check_install(arguments)
        case ["make", target, *settings]:
            makefile = (ROOT / "Makefile").read_text()
            assert re.search(rf"^{target}:", makefile, re.M)
            for setting in settings:
                assert re.search(rf"^{setting.partition('=')[0]} \?=", makefile, re.M)
        case [("launch/local.sh" | "launch/gpu.sh") as script, *flags]:
            own = re.findall(r"^#   (--\w+)=", (ROOT / script).read_text(), re.M)
            rest = [flag for flag in flags if flag.partition("=")[0] not in own]
            commands.check([program_of(flags), *rest])
        case ["launch/share.sh", *flags]:
            rest = [flag for flag in flags if not flag.startswith("--program=")]
            commands.check([program_of(flags), *rest])
        case ["sbatch", *arguments]:
            script = arguments.index("launch/slurm.sbatch")
            assert all(word.startswith("--") for word in arguments[:script])
            flags = arguments[script + 1 :]
            rest = [flag for flag in flags if not flag.startswith("--program=")]
            commands.check([program_of(flags), *rest])
        case ["kubectl", "create", "-f", manifest]:
            assert (ROOT / manifest).is_file()
        case ["launch/tpu_pod.sh", *arguments]:
            check_dry_run(arguments)
        case [program, *_]:
            assert program in OTHERS, f"who parses {shlex.join(words)!r}?"


def program_of(flags):
    """The program that a launch script is asked for."""
    named = (flag for flag in flags if flag.startswith("--program="))
    return f"musilingo_jax.{next(named, '=train').partition('=')[2]}"


def check_install(arguments):
    """Extras are extras of this project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for argument in arguments:
        for extra in re.findall(r"\[(.*)\]", argument):
            assert set(extra.split(",")) <= set(project["optional-dependencies"])


def check_dry_run(arguments):
    """`tpu_pod.sh` says what it would do, without asking anybody."""
    arguments = [re.sub("BUCKET", "mine", word) for word in arguments]
    before, flags = arguments, []
    if "--" in arguments:
        place = arguments.index("--")
        before, flags = arguments[:place], arguments[place + 1 :]
        commands.check([program_of(before), *flags])
    dry = [word for word in before if word != "--dry-run"]
    done = subprocess.run(
        [
            ROOT / "launch/tpu_pod.sh",
            *dry,
            "--dry-run",
            *(["--", *flags] if flags else []),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def run_blocks(how, folder):
    """Runs the blocks of that mark, each page in a folder of its own."""
    ran = 0
    for page, mark, lines in blocks():
        if mark != how:
            continue
        place = folder / page.stem
        if not place.exists():
            place.mkdir()
            for name in ("configs", "musilingo_jax", "launch", "benchmarks"):
                (place / name).symlink_to(ROOT / name)
        for words in lines:
            done = subprocess.run(
                [
                    part
                    for word in words
                    for part in {
                        "python": [sys.executable],
                        "musilingo": [sys.executable, "-m", "musilingo_jax.command"],
                    }.get(word, [word])
                ],
                cwd=place,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{page.name}: {words}\n{done.stderr}"
            ran += 1
    return ran


@pytest.mark.slow
def test_marked_commands_run(tmp_path):
    assert run_blocks("run", tmp_path) >= 3


@pytest.mark.slow
def test_commands_that_take_long_run(tmp_path):
    assert run_blocks("run slowly", tmp_path) >= 3
