"""Commands that texts show, given to the parsers of their programs."""

import functools
import re
import shlex

from helpers import programs


def commands_in(text):
    """Each `python -m musilingo_jax.…` at the beginning of a line, as a list of words.

    A backslash continues a line, `#` begins a comment, and a variable of the shell has
    the value 1.
    """
    lines = re.findall(
        r"^ *python -m (musilingo_jax\.\S.*)$", text.replace("\\\n", " "), re.MULTILINE
    )
    lines = [re.sub(r"\$\w+", "1", line) for line in lines]
    return [shlex.split(line, comments=True) for line in lines]


def check(words, cwd=programs.ROOT):
    """Asserts that a program parses a command, its config and overrides included.

    The program ends before it does anything: `--only_check_args` is a flag of absl.
    """
    module, *arguments = words
    done = programs.run(
        module.removeprefix("musilingo_jax."), *arguments, "--only_check_args", cwd=cwd
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), words


def check_script(script, flags):
    """Asserts that a script of this repository knows each flag by its own help."""
    known = _flags_of(script)
    for flag in flags:
        assert flag.partition("=")[0].removeprefix("--") in known, (script, flag)


@functools.cache
def _flags_of(script):
    done = programs.run_script(script, "--help")
    return re.findall(r"--(?:\[no\])?(\w+)", done.stdout + done.stderr)
