"""The text of summary.txt: what a run did, and the commands to use its result."""

import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from absl.flags import FlagValues
from ml_collections import config_flags

from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.runtime.printable import printable
from musilingo_jax.training.metrics_rows import MetricsRow
from musilingo_jax.training.run_folder import RunFolder
from musilingo_jax.training.stage_config import StageConfig


def describe(
    run: RunFolder,
    stages: dict[str, StageConfig],
    features: FeatureCache,
    clips: Sequence[str],
    *,
    unused: int,
    seconds: float,
    typed: Sequence[str],
) -> str:
    """The text of summary.txt.

    Args:
      run: folder of the run, with metrics and examples.json of each stage.
      stages: name → settings.
      features: the cache, which knows which clips could not be read.
      clips: all clips of the training and the validation split.
      unused: training records that no stage trains on.
      seconds: duration of the command.
      typed: flags for the suggested commands, as of `config_arguments`.
    """
    rows = {name: run.metrics(name) for name in stages}
    lines = [f"Trained adapter: {run.path / 'adapter'}"]
    if any("validation_loss" in row for name in stages for row in rows[name]):
        lines.append(f"Lowest validation loss: {run.path / 'adapter-best'}")
    lines.append("")
    for name, stage in stages.items():
        counts = run.read(f"{name}/examples.json")
        lines += _stage(name, stage, counts, rows[name])
    if unused:
        lines.append(
            f"{unused} records of the training split were not used, because no stage "
            "takes their kind (a stage's `questions` chooses between captions and "
            "questions)"
        )
    lines += [f"This command took {_duration(seconds)}.", ""]
    lines += _skipped(features, clips)
    lines += _next_steps(run, typed)
    return printable("\n".join(lines) + "\n")


def config_arguments(flags: FlagValues) -> list[str]:
    """The arguments that give another program the same config: its file and changes.

    --config x.py --config.run a --profile 2:2    →    --config=x.py --config.run=a
    """
    changes = config_flags.get_override_values(flags["config"])
    return [
        f"--config={config_flags.get_config_filename(flags['config'])}",
        *(f"--config.{key}={value}" for key, value in changes.items()),
    ]


def _stage(
    name: str,
    stage: StageConfig,
    counts: Mapping[str, Any],
    rows: Sequence[MetricsRow],
) -> list[str]:
    """What one stage did: a line, and some indented ones."""
    updates = [row for row in rows if "loss" in row]
    validations = [row for row in rows if "validation_loss" in row]

    first = (
        f"{name}: {stage.steps} updates of {stage.batch_size * stage.accumulate} "
        f"examples, drawn from {counts['examples']} examples about {counts['clips']} "
        "clips"
    )
    if updates:
        first += f"; loss {updates[0]['loss']:.3f} → {updates[-1]['loss']:.3f}"
    lines = [first]

    if validations:
        losses = [row["validation_loss"] for row in validations]
        # Of equal losses the later one, as in the checkpoints.
        best = min(validations, key=lambda row: (row["validation_loss"], -row["step"]))
        lines.append(
            f"  validation loss on {counts['validation_examples']} examples: "
            f"{losses[0]:.3f} → {losses[-1]:.3f}; lowest {best['validation_loss']:.3f} "
            f"after update {best['step']}"
        )

    speeds = [r["tokens_per_second"] for r in updates if "tokens_per_second" in r]
    padding = [r["padding_share"] for r in updates if "padding_share" in r]
    performance = []
    if speeds:
        performance.append(f"{statistics.median(speeds):,.0f} tokens/s (median)")
    if padding:
        performance.append(f"{100 * statistics.fmean(padding):.1f} % padding")
    if performance:
        lines.append(f"  {', '.join(performance)}")

    too_long = f"longer than {stage.max_tokens} tokens were left out"
    without_audio = "were left out because their clip has no features"
    notes = (
        ("repeated", "examples are duplicates, and count twice"),
        ("cut", f"answers were cut to {stage.prompt.max_answer_tokens} tokens"),
        ("too_long", f"examples {too_long}"),
        ("without_audio", f"examples {without_audio}"),
        ("validation_too_long", f"validation examples {too_long}"),
        ("validation_without_audio", f"validation examples {without_audio}"),
    )
    return lines + [f"  {counts[key]} {note}" for key, note in notes if counts[key]]


def _skipped(features: FeatureCache, clips: Sequence[str]) -> list[str]:
    """The clips without features, each with the reason."""
    skipped = [clip for clip in clips if clip in features.skipped]
    if not skipped:
        return []
    return [
        f"Skipped {len(skipped)} clips that cannot be read:",
        *(f"  {clip}: {features.skipped[clip]}" for clip in skipped),
        "",
    ]


def _next_steps(run: RunFolder, typed: Sequence[str]) -> list[str]:
    """Where the loss is plotted, and the commands to use the adapter."""
    folder, answers, board = (
        shlex.quote(str(path))
        for path in (run.path, run.path / "answers.jsonl", run.path / "tensorboard")
    )
    lines = [
        f"Loss over time: {run.path / 'loss.png'}",
        f"  tensorboard --logdir={board}",
        "",
        "Next:",
    ]
    if typed:
        config = shlex.join(typed)
        lines += [
            f"  python -m musilingo_jax.evaluate {config}",
            f"  python -m musilingo_jax.generate {config} --out={answers}",
        ]
    return [*lines, f"  python -m musilingo_jax.chat SONG.wav --run={folder}"]


def _duration(seconds: float) -> str:
    """90 → "1 min 30 s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (seconds, "s"))
    return " ".join(f"{n} {unit}" for n, unit in parts if n) or "less than 1 s"
