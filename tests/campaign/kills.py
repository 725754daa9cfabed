"""Programs that are killed, and started again until they finish.

A chain is two kills, each at a change of a file or at a moment of processor time, and a
last run that may finish. Its result must be that of a run that nothing disturbed, and
what was finished at a kill must not be made again.
"""

import dataclasses
import functools
import random
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.programs import Done

from campaign import attempt, inside, outcomes, results
from campaign.attempt import Attempt
from campaign.workspace import CONFIG

KILLS = 2
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclasses.dataclass(frozen=True)
class Journey:
    """A program that leaves something behind.

    Attributes:
      name: of the journey, in reports.
      command: the program and its arguments.
      result: what it leaves.
      count: chains in the whole campaign.
      finished: what must still be there after the next run, as texts.
      prelude: Python that its process executes first.
      quick: whether a run takes seconds, and not tens of them.
    """

    name: str
    command: tuple[str, ...]
    result: results.Result
    count: int
    finished: Callable[[Path], set[str]] = lambda place: set()
    prelude: str = ""
    quick: bool = True

    def attempt(self, place: Path, prelude: str = "") -> Attempt:
        """One run of it."""
        return Attempt(place, [self.command], Path(), self.prelude + prelude)


def shards(place: Path) -> set[str]:
    """The finished shards of a cache, which no later job may write again."""
    paths = (place / "new").glob("*.json")
    return {f"{path.name} {path.stat().st_mtime_ns}" for path in paths}


def lines(place: Path) -> set[str]:
    """The finished answers."""
    path = place / "new.jsonl"
    text = path.read_text("utf-8") if path.exists() else ""
    return set(text.split("\n")[:-1])


def updates(place: Path) -> set[str]:
    """The updates up to the last checkpoint of each stage, with their times."""
    kept = set()
    for line in (place / "new").glob("metrics.jsonl"):
        for row in line.read_text("utf-8").split("\n")[:-1]:
            fields = results.parsed(row)
            folder = place / "new" / fields["stage"] / "checkpoints"
            steps = [int(p.name) for p in folder.glob("*") if p.name.isdecimal()]
            if fields["step"] <= max(steps, default=0):
                kept.add(row)
    return kept


JOURNEYS = (
    Journey(
        "train",
        ("train", CONFIG, "--config.run=new"),
        results.training("new"),
        count=36,
        finished=updates,
    ),
    Journey(
        "cache",
        (
            "cache",
            CONFIG,
            "--config.features.cache=new",
            "--config.features.shard_clips=1",
        ),
        results.files("new/0*", "new/index.jsonl", "new/plans/*"),
        count=30,
        finished=shards,
    ),
    Journey(
        "generate",
        ("generate", CONFIG, "--out=new.jsonl", "--config.generate.batch_size=1"),
        results.files("new.jsonl"),
        count=24,
        finished=lines,
    ),
    Journey(
        "evaluate",
        ("evaluate", CONFIG, "--out=new"),
        results.files("new/report.json", "new/answers.jsonl", "new/examples.jsonl"),
        count=14,
    ),
    Journey(
        "evaluate predictions",
        ("evaluate", "--predictions=predictions.jsonl", "--json=s.json", "--out=new"),
        results.files("s.json", "new/report.json", "new/examples.jsonl"),
        count=12,
    ),
    Journey(
        "corpora.build",
        ("corpora.build", "own_songs", "--source=corpus/songs.jsonl", "--out=new"),
        results.corpus("new/own_songs"),
        count=24,
    ),
    Journey(
        "convert export",
        ("convert", "export", "run", "--out=new"),
        results.files("new/*"),
        count=12,
    ),
    Journey(
        "convert safetensors",
        ("convert", "safetensors", "torch", "--out=new"),
        results.files("new/*"),
        count=6,
    ),
    Journey(
        "convert merge",
        ("convert", "merge", "--base=language_model", "--delta=delta", "--out=new"),
        results.files("new/*"),
        count=12,
    ),
    Journey(
        "recipe",
        ("recipes.tiny", "--config=recipe.py", "--soundfonts=fonts"),
        results.files("new/model/**/*", "new/corpus/**/*"),
        count=6,
        # Sines for soundfonts, in this process: others would not have them.
        prelude=inside.sines(),
        quick=False,
    ),
)


def planned(scale: float, at_least: int = 1) -> list[tuple[Journey, int]]:
    """The numbered chains."""
    return [
        (journey, number)
        for journey in JOURNEYS
        for number in range(max(at_least, round(scale * journey.count)))
    ]


def identity(journey: Journey, number: int, seed: int) -> str:
    """The name of a chain, from which all its random choices follow."""
    return f"kills of {journey.name}/{seed}/{number}"


def try_one(
    journey: Journey, number: int, *, seed: int, workspace: Path
) -> dict[str, Any]:
    """Kills a program `KILLS` times and lets it finish; the row about it."""
    rng = random.Random(identity(journey, number, seed))
    expected, changes, seconds = undisturbed(journey, workspace)
    hows, said, kills, outcome = [], "", 0, "same"
    with attempt.place_of(workspace) as place:
        had: set[str] = set()
        for last in (*(False,) * KILLS, True):
            how, prelude, sent = "to the end", "", None
            if not last:
                sent = rng.choice(SIGNALS)
                how, prelude = _moment(rng, sent, changes, seconds)
            done = attempt.run(journey.attempt(place, prelude))
            said += done.stderr
            hows.append(f"{how} → {done.returncode}")
            outcome = _judge(journey, place, done, sent, expected)
            now = journey.finished(place)
            if outcome == "different":
                said += results.difference(journey.result, place, done, expected)
            if outcome in ("same", "ended") and not had <= now:
                outcome = "lost"
            had = now
            kills += outcome == "ended"
            if outcome != "ended":
                break
    return {
        "part": "kills",
        "kind": journey.name,
        "id": identity(journey, number, seed),
        "how": ", ".join(hows),
        "kills": kills,
        "outcome": outcome,
        "said": said[-600:],
    }


@functools.cache
def undisturbed(journey: Journey, workspace: Path) -> tuple[str, int, float]:
    """The result, changes of files and processor seconds of a whole run."""
    with attempt.place_of(workspace) as place, tempfile.TemporaryDirectory() as notes:
        count = Path(notes) / "count"
        prelude = inside.count_changes(count)
        done = attempt.run(journey.attempt(place, prelude))
        if done.returncode:
            raise RuntimeError(f"{journey.command}: fails\n{done.stderr}")
        changes, seconds = count.read_text().split()
        return journey.result(place, done), int(changes), float(seconds)


def _moment(
    rng: random.Random, sent: signal.Signals, changes: int, seconds: float
) -> tuple[str, str]:
    if rng.random() < 0.7:
        number = rng.randint(1, changes)
        how = f"{sent.name} at change {number} of {changes}"
        return how, inside.kill_at_change(number, sent)
    moment = rng.uniform(0.05, 1.0) * seconds
    how = f"{sent.name} after {moment:.2f} of {seconds:.2f} s"
    return how, inside.kill_at_cpu(moment, sent)


def _refuses_to_write_over(done: Done) -> bool:
    last = done.stderr.strip().split("\n")[-1]
    return last.startswith("error: new") and "already" in last and "--out" in last


def _judge(
    journey: Journey,
    place: Path,
    done: Done,
    sent: signal.Signals | None,
    expected: str,
) -> str:
    """The outcome of one run: "ended", if the signal ended it."""
    if "Traceback (most recent call last)" in done.stderr:
        return "traceback"
    # A program that has not begun yet dies of the signal itself.
    if sent is not None and done.returncode in (-sent, 128 + sent):
        return "ended"
    same = results.equal(journey.result, place, done, expected)
    if done.returncode == 1 and same and _refuses_to_write_over(done):
        return "same"  # The kill came when all was finished.
    same = same and done.returncode == 0
    return outcomes.classify(
        done, same=same, guarded=True, names=(), place=place, usual=done.stderr
    )
