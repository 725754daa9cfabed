"""What may stand in the place of a file, and names that files may have."""

import os
import random
import shutil

from campaign import inside
from campaign.attempt import Attempt
from campaign.json_mutations import ESCAPE

NAMES = (
    f"a{ESCAPE}b",
    "line\nerror: line",
    "tab\tab",
    "\udcff\udcfe",
    "\u00e9",
    "e\u0301",
    "-",
    "a b",
    "%s{}$(touch canary)`touch canary`",
    "a:b",
    "~",
    "#",
    "x" * 200,
    "\u202eba",
    "'\"",
    "*",
)


def replace_file(rng: random.Random, attempt: Attempt) -> str:
    """Something else in the place of the file."""
    path = attempt.path
    kind = rng.choice(
        (
            "missing",
            "empty",
            "folder",
            "pipe",
            "loop",
            "zeros",
            "unreadable",
            "dangling",
        )
    )
    if kind == "unreadable":
        _make_unreadable(attempt)
        return kind
    path.unlink()
    match kind:
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path.name)
        case "zeros":
            path.symlink_to("/dev/zero")
        case "dangling":
            path.symlink_to("nowhere")
    return kind


def replace_folder(rng: random.Random, attempt: Attempt) -> str:
    """Something else in the place of the folder that the file is in."""
    folder = attempt.path.parent
    kind = rng.choice(("missing", "empty", "file", "pipe", "loop"))
    shutil.rmtree(folder)
    match kind:
        case "empty":
            folder.mkdir()
        case "file":
            folder.touch()
        case "pipe":
            os.mkfifo(folder)
        case "loop":
            folder.symlink_to(folder.name)
    return f"the folder: {kind}"


def rename(rng: random.Random, attempt: Attempt) -> str:
    """Another name of the file or folder that the commands name."""
    name = rng.choice(NAMES)
    old = str(attempt.target)
    new = name + attempt.target.suffix
    attempt.path.rename(attempt.place / new)
    attempt.commands = [
        tuple(word.replace(old, new) for word in command)
        for command in attempt.commands
    ]
    attempt.target = type(attempt.target)(new)
    return f"called {new!r}"


def _make_unreadable(attempt: Attempt) -> None:
    attempt.prelude += inside.obey_permissions()
    attempt.path.chmod(0)
