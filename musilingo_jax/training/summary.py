"""What a run did and what can be done with it, for the person who started it."""

import shlex
import statistics
from collections.abc import Sequence

from absl.flags import FlagValues

from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.training.run_folder import RunFolder
from musilingo_jax.training.stage_config import StageConfig


def describe(
    run: RunFolder,
    stages: dict[str, StageConfig],
    features: FeatureCache,
    clips: Sequence[str],
    *,
    not_learnt: int,
    seconds: float,
    typed: Sequence[str],
) -> str:
    """The text of summary.txt.

    Args:
      run: its folder, with metrics and examples of each stage.
      stages: name → what was to be done.
      features: the cache, which knows what could not be read.
      clips: all clips of the training and the validation split.
      not_learnt: records of the training split that are of no stage's kind.
      seconds: what the command took.
      typed: the flags that it was started with.
    """
    lines = [f"The adapter is trained: {run.path / 'adapter'}"]
    if any("validation_loss" in row for name in stages for row in run.metrics(name)):
        lines.append(f"The one with the lowest loss: {run.path / 'adapter-best'}")
    lines.append("")
    for name, stage in stages.items():
        made, rows = run.read(f"{name}/examples.json"), run.metrics(name)
        lines.append(
            f"{name}: {stage.steps} updates of {stage.batch_size * stage.accumulate} "
            f"examples, drawn from {made['examples']} examples about {made['clips']} "
            "clips"
        )
        losses = [row["loss"] for row in rows if "loss" in row]
        if losses:
            lines[-1] += f"; loss {losses[0]:.3f} → {losses[-1]:.3f}"
        looks = [row for row in rows if "validation_loss" in row]
        if looks:
            # Of equals the later one, as in the checkpoints.
            best = min(looks, key=lambda row: (row["validation_loss"], -row["step"]))
            first, last, lowest = (
                f"{row['validation_loss']:.3f}" for row in (looks[0], looks[-1], best)
            )
            lines.append(
                f"  validation loss, on {made['validation_examples']} examples: {first}"
                f" → {last}; lowest {lowest} after update {best['step']}"
            )
        speeds = [r["tokens_per_second"] for r in rows if "tokens_per_second" in r]
        padding = [r["padding_share"] for r in rows if "padding_share" in r]
        speed = []
        if speeds:
            speed.append(f"{statistics.median(speeds):,.0f} tokens/s (median)")
        if padding:
            speed.append(f"{100 * statistics.fmean(padding):.1f} % padding")
        if speed:
            lines.append(f"  {', '.join(speed)}")
        long = f"longer than {stage.max_tokens} tokens were left out"
        unheard = "were left out because their song has no features"
        notes = {
            "examples are there twice and count twice": made["repeated"],
            f"answers were cut at {stage.prompt.max_answer_tokens} tokens": made["cut"],
            f"examples {long}": made["too_long"],
            f"examples {unheard}": made["without_audio"],
            f"validation examples {long}": made["validation_too_long"],
            f"validation examples {unheard}": made["validation_without_audio"],
        }
        lines += [f"  {count} {note}" for note, count in notes.items() if count]
    if not_learnt:
        lines.append(
            f"{not_learnt} records of the training split were not learnt from, for no "
            "stage takes their kind (a stage's `questions` chooses between captions "
            "and questions)"
        )
    lines.append(f"This command took {_duration(seconds)}.")

    skipped = {
        clip: features.skipped[clip] for clip in clips if clip in features.skipped
    }
    if skipped:
        lines += ["", f"Skipped, because they cannot be heard ({len(skipped)} clips):"]
        lines += [f"  {clip}: {reason}" for clip, reason in skipped.items()]

    lines += [
        "",
        f"How the loss went: {run.path / 'loss.png'}",
        f"  tensorboard --logdir={shlex.quote(str(run.path / 'tensorboard'))}",
        "",
        "Next:",
    ]
    flags = shlex.join(typed)
    if flags:
        lines += [
            f"  python -m musilingo_jax.evaluate {flags}",
            f"  python -m musilingo_jax.generate {flags} --out="
            f"{shlex.quote(str(run.path / 'answers.jsonl'))}",
        ]
    lines.append(
        f"  python -m musilingo_jax.chat SONG.wav --run={shlex.quote(str(run.path))}"
    )
    return "\n".join(lines) + "\n"


def without(
    flags: FlagValues, arguments: Sequence[str], names: Sequence[str]
) -> list[str]:
    """The arguments of a command line that are not about some of its flags.

        --config x.py --profile 2:2 --nodistributed    --config x.py

    Args:
      flags: all that there are; they know which take a value.
      arguments: as typed, the program's name left out.
      names: of the flags to leave out.
    """
    kept, rest = [], list(arguments)
    while rest:
        words = [rest.pop(0)]
        name, equals, _ = words[0].lstrip("-").partition("=")
        switch = name not in flags or flags[name].boolean
        if not equals and not switch and rest:
            words.append(rest.pop(0))
        if name not in names and name.removeprefix("no") not in names:
            kept += words
    return kept


def _duration(seconds: float) -> str:
    """90 → "1 min 30 s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (seconds, "s"))
    return " ".join(f"{n} {unit}" for n, unit in parts if n) or "less than 1 s"
