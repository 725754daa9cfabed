"""`--help` of every program: complete, with commands that can be pasted."""

import re

import pytest
from helpers import commands, programs
from helpers.programs import ROOT

from musilingo_jax import cache
from musilingo_jax.convert import __main__ as convert

pytestmark = pytest.mark.medium

PROGRAMS = (
    "train",
    "evaluate",
    "generate",
    "chat",
    "cache",
    "annotate",
    "caption",
    "instruct",
    "search",
    "benchmark",
    "convert",
    "plan",
    "serve",
    "web",
    "corpora.build",
    "recipes.tiny",
    "recipes.render",
    "recipes.teachers",
    "recipes.annotation_errors",
)
# These have no flags of absl.
BY_ARGPARSE = (
    "annotate",
    "caption",
    "benchmark",
    "convert",
    "instruct",
    "recipes.annotation_errors",
    "recipes.teachers",
    "search",
    "serve",
    "web",
)
SUBCOMMANDS = {
    "cache": ("inspect", "export"),
    "convert": ("safetensors", "merge", "split", "adapter", "peft", "gguf", "export"),
}
EVERY = [(name,) for name in PROGRAMS] + [
    (name, command) for name in SUBCOMMANDS for command in SUBCOMMANDS[name]
]


def help_of(name, *words):
    """The help as a wide terminal shows it."""
    done = programs.run(name, *words, "--help", env={"COLUMNS": "120"})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def listed_in(text):
    """Flag → its help, of those that are listed with a help on the same line."""
    return dict(re.findall(r"^  (?:-h, )?(--\w+)(?: [A-Z_]+)?  +(\S.*)$", text, re.M))


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_lists_every_flag_that_the_program_defines(name):
    listed = listed_in(help_of(name))
    everything = programs.run(name, "--helpfull").stdout
    ours = {
        f"--{flag}"
        for section in re.split(r"\n(?=\S)", everything)
        if "musilingo_jax" in section.partition("\n")[0]
        for flag in re.findall(r"^  (?:-\w,)?--(?:\[no\])?(\w+):", section, re.M)
    }
    assert ours <= listed.keys()
    if name not in BY_ARGPARSE:
        assert ours
    if "--config" in ours:
        assert "--config.KEY=VALUE" in listed["--config"]
    assert not {"--pdb", "--verbosity", "--run_with_profiling"} & listed.keys()
    assert "--help" in listed


@pytest.mark.parametrize("parser", [cache.parser(), convert.parser()])
def test_help_of_subcommands_lists_every_argument(parser):
    (subcommands,) = (a for a in parser._actions if a.dest == "command")
    name = parser.prog.rpartition(".")[2]
    assert tuple(subcommands.choices) == SUBCOMMANDS[name]
    for command, subparser in subcommands.choices.items():
        text = help_of(name, command)
        assert text.startswith(f"usage: {parser.prog} {command} ")
        flags = [a.option_strings[-1] for a in subparser._actions if a.option_strings]
        assert set(flags) <= listed_in(text).keys()
        assert all(action.help for action in subparser._actions)


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_help_is_short_and_its_commands_can_be_pasted(words):
    text = help_of(*words)
    assert text.startswith(f"usage: python -m musilingo_jax.{' '.join(words)} ")
    # One line for each flag.
    for section in re.findall(r"\n(?:options|flags|encoding):\n((?:  .*\n)+)", text):
        assert all(line.startswith("  -") for line in section.splitlines())
    examples = commands.commands_in(text)
    for example in examples:
        assert "…" not in " ".join(example)
        commands.check(example)
    if len(words) == 1:
        assert f"musilingo_jax.{words[0]}" in {example[0] for example in examples}


@pytest.mark.parametrize("flag", ["-h", "--helpshort"])
def test_help_has_other_spellings(flag):
    assert (
        programs.run("chat", "song.ogg", flag).stdout
        == programs.run("chat", "--help").stdout
    )


TEXTS = [
    path
    for path in sorted(
        {*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("docs/**/*.md")}
    )
    if commands.commands_in(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_commands_of_the_documentation_can_be_pasted(path):
    for command in commands.commands_in(path.read_text(encoding="utf-8")):
        words = [word.replace("--config=…", "--config=tiny") for word in command]
        # The parsers need not see what else a reader has to fill in.
        commands.check([word for word in words if "…" not in word])
