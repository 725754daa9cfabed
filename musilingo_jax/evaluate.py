"""What a trained adapter hears, against controls that cannot hear.

    python -m musilingo_jax.evaluate --config=configs/tiny.py

asks the questions of the test split, twice: once with each clip's own music, once with
another clip's ("shuffled audio"). What is right in the second case comes from the
question and from habit, not from listening. A third control is one constant answer.
Scores, intervals and controls go to `<run>/evaluation`: report.md, report.json,
accuracy.png and answers.jsonl.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from absl import flags
from jaxtyping import Float
from ml_collections import ConfigDict

from musilingo_jax import cache, cli, generate, metrics, report
from musilingo_jax.answers import AnswerFile, Ask, fingerprint
from musilingo_jax.compilation import keep_compiled_programs
from musilingo_jax.corpora import mixture
from musilingo_jax.corpora.records import Record
from musilingo_jax.errors import UsageError, UserError
from musilingo_jax.report import Estimate, Score
from musilingo_jax.sharding import make_mesh
from musilingo_jax.sources import ModelConfig

RESAMPLES = 2000
# Training answers among which the most typical one is looked for: their square counts.
TYPICAL_AMONG = 64

Scores = Float[np.ndarray, " rows"]


@dataclass(frozen=True)
class Asked:
    """A record of the test split and what the model said to it."""

    record: Record
    answer: str
    shuffled: str  # with another clip's music

    @property
    def kind(self) -> str:
        """Records of one kind have comparable answers."""
        return kind_of(self.record)


def kind_of(record: Record) -> str:
    if record.attribute is not None:
        return record.attribute
    return "other questions" if record.question else "captions"


def derangement(clips: Sequence[str], seed: int) -> dict[str, str]:
    """Gives each clip another one: in a shuffled circle, the one after it.

        circle   b → d → a → c → (b)       none is given itself, none given twice

    Raises:
      UserError: there are not two different clips.
    """
    circle = np.random.default_rng(seed).permutation(sorted(set(clips))).tolist()
    if len(circle) < 2:
        raise UserError(
            "the test split has only one readable clip: the control with another "
            "clip's music needs at least two"
        )
    return dict(zip(circle, circle[1:] + circle[:1], strict=True))


def accuracies(
    asked: Sequence[Asked], records: Sequence[Record], train_split: str, seed: int
) -> list[Score]:
    """For each attribute of the test split: how many answers name its true value.

    Args:
      asked: the test split, answered.
      records: the whole corpus; the values of an attribute are all those in it.
      train_split: its most frequent value of an attribute is the constant answer (of
        equals the alphabetically first).
      seed: of the bootstrap.
    """
    scores = []
    for attribute in sorted({a.record.attribute for a in asked} - {None}):
        rows = [a for a in asked if a.record.attribute == attribute]
        of_corpus = [r for r in records if r.attribute == attribute]
        values = {r.value for r in of_corpus}
        told = [metrics.named_value(a.record.answer, values) for a in rows]
        silent = sum(t != a.record.value for t, a in zip(told, rows, strict=True))
        constant = _most_frequent(r.value for r in of_corpus if r.split == train_split)

        def right(said: Sequence[str | None], rows: list[Asked] = rows) -> Scores:
            return np.array(
                [value == a.record.value for value, a in zip(said, rows, strict=True)],
                np.float64,
            )

        named = [metrics.named_value(a.answer, values) for a in rows]
        shuffled = [metrics.named_value(a.shuffled, values) for a in rows]
        scores.append(
            _score(
                attribute,
                "accuracy",
                rows,
                right(named),
                right(shuffled),
                None if constant is None else right([constant] * len(rows)),
                constant_answer=constant,
                unanswered=named.count(None),
                unscorable=silent,
                interval=_wilson,
                seed=seed,
            )
        )
    return scores


def rouges(
    asked: Sequence[Asked], records: Sequence[Record], train_split: str, seed: int
) -> list[Score]:
    """For each kind of record: mean ROUGE-L F1 of the answers with the references.

    The constant answer of a kind is, among training answers drawn with `seed`, the one
    that shares most with the others.
    """
    scores = []
    for kind in sorted({a.kind for a in asked}):
        rows = [a for a in asked if a.kind == kind]
        references = [a.record.answer for a in rows]
        training = [
            r.answer for r in records if r.split == train_split and kind_of(r) == kind
        ]
        drawn = np.random.default_rng(seed).permutation(training)[:TYPICAL_AMONG]
        constant = metrics.most_typical(drawn.tolist()) if training else None

        def rouge(said: Sequence[str], references: list[str] = references) -> Scores:
            return np.array(list(map(metrics.rouge_l, said, references)), np.float64)

        scores.append(
            _score(
                kind,
                "rouge_l",
                rows,
                rouge([a.answer for a in rows]),
                rouge([a.shuffled for a in rows]),
                None if constant is None else rouge([constant] * len(rows)),
                constant_answer=constant,
                unanswered=None,
                unscorable=0,
                interval=_bootstrap,
                seed=seed,
            )
        )
    return scores


def _score(
    name: str,
    metric: str,
    rows: Sequence[Asked],
    own: Scores,
    shuffled: Scores,
    constant: Scores | None,
    *,
    constant_answer: str | None,
    unanswered: int | None,
    unscorable: int,
    interval: Callable[[Scores, Sequence[str], int], tuple[float, float]],
    seed: int,
) -> Score:
    """Means with their own intervals, and paired differences to the controls."""
    clips = [a.record.clip for a in rows]

    def mean(scores: Scores) -> Estimate:
        return Estimate(float(scores.mean()), *interval(scores, clips, seed))

    def above(control: Scores) -> Estimate:
        gain = own - control
        return Estimate(float(gain.mean()), *_bootstrap(gain, clips, seed))

    return Score(
        name=name,
        metric=metric,
        rows=len(rows),
        clips=len(set(clips)),
        own=mean(own),
        shuffled=mean(shuffled),
        above_shuffled=above(shuffled),
        constant=None if constant is None else mean(constant),
        above_constant=None if constant is None else above(constant),
        constant_answer=constant_answer,
        unanswered=unanswered,
        unscorable=unscorable,
    )


def _wilson(scores: Scores, clips: Sequence[str], seed: int) -> tuple[float, float]:
    del clips, seed
    return metrics.wilson_interval(int(scores.sum()), len(scores))


def _bootstrap(scores: Scores, clips: Sequence[str], seed: int) -> tuple[float, float]:
    return metrics.bootstrap_interval(scores, clips, resamples=RESAMPLES, seed=seed)


def _most_frequent(values: Sequence[str]) -> str | None:
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value)) if counts else None


def evaluate(config: ConfigDict, adapter: str | None, out: Path | None) -> Path:
    """Asks, scores and reports.

    Args:
      config: the experiment.
      adapter: folder or embedded name of an adapter; None for the run's.
      out: folder of the report; None for `<run>/evaluation`.

    Returns:
      The folder. Answers that it already holds are taken over if they are of this very
      adapter and configuration, else replaced.

    Raises:
      UserError: there is no adapter, no test split, or a part cannot be read.
    """
    if config.seed < 0:
        raise UserError(f"config.seed is {config.seed}: it must be 0 or more")
    adapter = generate.adapter_of(config, adapter)
    folder = out or Path(config.run) / "evaluation"
    identity = generate.identity(config, adapter)
    mesh = make_mesh(**config.mesh)
    test = mixture.split(config.corpus, config.corpus.test_split, answered=True)
    features = cache.prepare(config, test, mesh)
    test_records = generate.askable(config, test, features.ids)
    heard = derangement([r.clip for r in test_records], config.seed)
    asks = [Ask(r, heard=r.clip) for r in test_records]
    asks += [Ask(r, heard=heard[r.clip]) for r in test_records]

    file = AnswerFile(folder / "answers.jsonl", fingerprint(identity), replace=True)
    model = replace(ModelConfig.from_config(config), adapter=adapter)
    speaker = generate.load_speaker(model, config.features.window_frames, mesh)
    said = generate.answer_corpus(speaker, config, asks, features.features, file, mesh)
    own, shuffled = said[: len(test_records)], said[len(test_records) :]
    asked = list(map(Asked, test_records, own, shuffled))
    records = mixture.load(config.corpus)
    split, seed = config.corpus.train_split, config.seed
    corpus = f"{mixture.title(config.corpus)} ({config.corpus.test_split})"
    trained_on = {r.clip for r in records if r.split == split}
    report.write(
        folder,
        title=f"{adapter} on {corpus}",
        accuracies=accuracies(asked, records, split, seed),
        rouges=rouges(asked, records, split, seed),
        left_out=len(test) - len(test_records),
        not_held_out=len({r.clip for r in test_records} & trained_on),
        identity=identity,
        config=config,
    )
    return folder


def main(argv: list[str]) -> None:
    """Reads the flags and evaluates."""
    if argv[1:]:
        raise UsageError(f"unknown argument {argv[1]!r} (try --help)")
    if flags.FLAGS.config is None:
        raise UsageError("say what to evaluate, for example --config=configs/tiny.py")
    keep_compiled_programs()
    out = flags.FLAGS.out
    folder = evaluate(flags.FLAGS.config, flags.FLAGS.adapter, out and Path(out))
    print((folder / "report.md").read_text(encoding="utf-8"))
    print(f"report, plot and answers are in {folder}")


if __name__ == "__main__":
    # Here and not above, so that other programs can import this one's functions.
    cli.define_config()
    flags.DEFINE_string("adapter", None, "folder of an adapter; default: the run's")
    flags.DEFINE_string("out", None, "folder of the report; default: <run>/evaluation")
    cli.run(main)
