"""Answers must not depend on what else is asked, in which order and which slots."""

import functools
import json
import random
from pathlib import Path
from typing import Any

from campaign import attempt
from campaign.attempt import Attempt
from campaign.workspace import CONFIG

COUNT = 40
COMMAND = ("generate", CONFIG, "--out=new.jsonl")
_DECODING = (
    (),
    ("--config.generate.temperature=0.8",),
    ("--config.generate.beams=2",),
    ("--config.generate.repetition_penalty=1.3",),
)


def planned(scale: float, at_least: int = 2) -> list[int]:
    """The numbers of the attempts."""
    return list(range(max(at_least, round(scale * COUNT))))


def identity(number: int, seed: int) -> str:
    """The name of an attempt, from which all its random choices follow."""
    return f"neighbours/{seed}/{number}"


def try_one(number: int, *, seed: int, workspace: Path) -> dict[str, Any]:
    """Asks some of the questions, in another order; the row about it."""
    rng = random.Random(identity(number, seed))
    decoding = _DECODING[number % len(_DECODING)]
    expected = _all(workspace, decoding)
    size = rng.choice((1, 2, 3, 5, 8))
    with attempt.place_of(workspace) as place:
        path = place / "corpus" / "songs.jsonl"
        rows = path.read_text().splitlines(keepends=True)
        rows = rng.sample(rows, rng.randint(4, len(rows)))
        path.write_text("".join(rows))
        done, found = _ask(place, (*decoding, f"--config.generate.batch_size={size}"))
    wrong = [key for key, answer in found.items() if expected[key] != answer]
    if done.returncode:
        outcome = "traceback" if "Traceback" in done.stderr else "unclear"
    else:
        outcome = "different" if wrong or not found else "same"
    return {
        "part": "neighbours",
        "kind": " ".join(decoding) or "greedy",
        "id": identity(number, seed),
        "how": f"{len(rows)} questions in batches of {size}: {len(wrong)} differ",
        "outcome": outcome,
        "said": done.stderr[-600:] if done.returncode else str(wrong[:1]),
    }


@functools.cache
def _all(workspace: Path, decoding: tuple[str, ...]) -> dict[tuple[str, str], str]:
    with attempt.place_of(workspace) as place:
        done, found = _ask(place, decoding)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return found


def _ask(place: Path, flags: tuple[str, ...]):
    done = attempt.run(Attempt(place, [(*COMMAND, *flags)], Path()))
    path = place / "new.jsonl"
    rows = map(
        json.loads, path.read_text("utf-8").splitlines() if path.exists() else ()
    )
    return done, {(row["clip"], row["question"]): row["answer"] for row in rows}
