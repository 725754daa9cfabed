"""Damaged inputs: a file of a workspace is damaged, and what reads it is run."""

import functools
import random
import shlex
import shutil
from pathlib import Path
from typing import Any

from helpers.programs import Done

from campaign import attempt, outcomes, results
from campaign.attempt import Attempt
from campaign.subjects import SUBJECTS, Subject

_KEPT_BYTES = 2**20


def planned(scale: float, at_least: int = 1) -> list[tuple[Subject, int]]:
    """The numbered inputs of all kinds; kinds take turns, so that a part shows all."""
    counts = {s.name: max(at_least, round(scale * s.count)) for s in SUBJECTS}
    inputs = [(s, n) for s in SUBJECTS for n in range(counts[s.name])]
    return sorted(inputs, key=lambda pair: (pair[1] + 0.5) / counts[pair[0].name])


def identity(subject: Subject, number: int, seed: int) -> str:
    """The name of an input, from which all its random choices follow."""
    return f"{subject.name}/{seed}/{number}"


def try_one(
    subject: Subject, number: int, *, seed: int, workspace: Path, out: Path
) -> dict[str, Any]:
    """Makes an input and runs its programs; the row about it."""
    rng = random.Random(identity(subject, number, seed))
    target = rng.choice(subject.targets(workspace))
    usual, expected = undamaged(subject, workspace, target)
    with attempt.place_of(workspace) as place:
        made = subject.attempt(place, target)
        how = rng.choice(subject.mutators)(rng, made)
        try:
            done = attempt.run(made)
        except TimeoutError:
            done = None
        outcome = judge(subject, made, done, usual, expected)
        row = {
            "part": "inputs",
            "kind": subject.name,
            "id": identity(subject, number, seed),
            "target": str(target),
            "how": how,
            "outcome": outcome,
            "status": done and done.returncode,
            "said": _end(done.stderr if done else ""),
        }
        if outcome not in outcomes.GOOD:
            keep(out / "failures" / row["id"].replace("/", "-"), made, done, how)
    return row


def judge(
    subject: Subject, made: Attempt, done: Done | None, usual: Done, expected: str
) -> str:
    """The outcome of an attempt, compared with that of the undamaged files."""
    same = (
        done is not None
        and done.returncode == 0
        and results.equal(subject.result, made.place, done, expected)
    )
    return outcomes.classify(
        done,
        same=same,
        guarded=subject.guarded,
        names=[*outcomes.names_of(made.target), *subject.names],
        place=made.place,
        usual=usual.stderr,
        harmless=made.harmless,
    )


def undamaged(subject: Subject, workspace: Path, target: Path) -> tuple[Done, str]:
    """What the programs leave when nothing is damaged, and its result."""
    commands = tuple(subject.attempt(workspace, target).commands)
    return _undamaged(subject, workspace, commands)


@functools.cache
def _undamaged(subject: Subject, workspace: Path, commands: tuple) -> tuple[Done, str]:
    with attempt.place_of(workspace) as place:
        done = attempt.run(Attempt(place, list(commands), Path()))
        if done.returncode:
            raise RuntimeError(f"{commands}: fails undamaged\n{done.stderr}")
        return done, subject.result(place, done)


def keep(folder: Path, made: Attempt, done: Done | None, how: str) -> None:
    """Writes the damaged file, the commands and their output."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if made.path.is_file() and made.path.stat().st_size < _KEPT_BYTES:
        shutil.copyfile(made.path, folder / "damaged")
    commands = "".join(
        f"python -m musilingo_jax.{shlex.join(command)}\n" for command in made.commands
    )
    text = f"{made.target}: {how}\n{commands}"
    if done is not None:
        text += f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    (folder / "what.txt").write_text(text, "utf-8", "backslashreplace")


def _end(text: str) -> str:
    """The last lines, as they can be printed."""
    text = text.encode(errors="backslashreplace").decode()
    return "\n".join(text.rstrip().splitlines()[-3:])[-600:]
