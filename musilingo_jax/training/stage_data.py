"""What the stages of a run train and validate on: records, and batches of them."""

import hashlib
import json
from dataclasses import dataclass
from typing import NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.corpora import mixture
from musilingo_jax.corpora.records import Record
from musilingo_jax.models.bridges import Bridge
from musilingo_jax.pretrained.tokenizer import Tokenizer
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training.batches import Batches, ValidationBatches
from musilingo_jax.training.examples import Examples
from musilingo_jax.training.stage_config import StageConfig


class Records(NamedTuple):
    """The records that a config names, whether or not their songs can be read.

    Attributes:
      training: the training split.
      validation: the validation split; [] if no stage validates.
    """

    training: list[Record]
    validation: list[Record]

    @classmethod
    def of(cls, config: ConfigDict, stages: dict[str, StageConfig]) -> "Records":
        """Reads them, and checks what can be checked before any song is encoded.

        Raises:
          UserError: as in `mixture.split`; a stage has no record of its kind; or only
            one of `validation_split` and `validate_every` is set.
        """
        split = config.corpus.validation_split
        validating = [name for name, stage in stages.items() if stage.validate_every]
        if validating and not split:
            name = validating[0]
            raise UserError(
                f"config.{name}.validate_every is {stages[name].validate_every}, but "
                "there is nothing to validate on: name a "
                f"config.corpus.validation_split, or set config.{name}.validate_every=0"
            )
        if split and not validating:
            raise UserError(
                f"config.corpus.validation_split is {split!r}, but no stage validates: "
                "set validate_every of one, as in "
                f"--config.{next(iter(stages))}.validate_every=50, or remove the split "
                "with --config.corpus.validation_split="
            )
        records = cls(
            mixture.split(config.corpus, config.corpus.train_split, answered=True),
            mixture.split(config.corpus, split, answered=True) if split else [],
        )
        for name, stage in stages.items():
            if not stage.choose(records.training):
                raise UserError(
                    f"config.{name}.questions = {stage.questions!r} leaves nothing to "
                    f"train on: none of the {len(records.training)} records is of that "
                    f"kind; set --config.{name}.questions=all, or leave the stage out "
                    "of --config.stages"
                )
            if stage.validate_every and not stage.choose(records.validation):
                raise _nothing_to_validate_on(config, name, stage)
        return records

    def fingerprints(self) -> dict[str, str]:
        """A digest of each split."""
        return {
            "records": _digest(self.training),
            "validation_records": _digest(self.validation),
        }

    @property
    def clips(self) -> list[str]:
        """The clips of both splits, each once."""
        return list(dict.fromkeys(r.clip for r in (*self.training, *self.validation)))


@dataclass(frozen=True)
class ExampleCounts:
    """What a stage trains and validates on in numbers: `examples.json`.

    Attributes:
      clips: clips of the training examples.
      examples: training examples, each drawn once per epoch.
      of_corpus: the same by corpus of a mixture; "" for a single corpus.
      repeated: training records that are there twice or more often.
      cut: training answers cut to `prompt.max_answer_tokens`.
      too_long: training records left out because of `max_tokens`.
      without_audio: training records left out because their clip has no features.
      validation_examples: examples that the stage validates on.
      validation_too_long: as `too_long`, of the validation split.
      validation_without_audio: as `without_audio`, of the validation split.
    """

    clips: int
    examples: int
    of_corpus: dict[str, int]
    repeated: int
    cut: int
    too_long: int
    without_audio: int
    validation_examples: int
    validation_too_long: int
    validation_without_audio: int


@dataclass(frozen=True)
class StageData:
    """A stage with everything that it trains and validates on.

    Attributes:
      name: of the stage.
      stage: its settings.
      batches: to train on.
      validation: to validate on; None if the stage does not validate.
      earlier_steps: updates of all stages before this one.
      counts: the content of `examples.json`.
    """

    name: str
    stage: StageConfig
    batches: Batches
    validation: ValidationBatches | None
    earlier_steps: int
    counts: ExampleCounts


def prepare(
    config: ConfigDict,
    stages: dict[str, StageConfig],
    name: str,
    records: Records,
    features: FeatureCache,
    tokenizer: Tokenizer,
    mesh: Mesh,
    *,
    bridge: type[Bridge],
) -> StageData:
    """Measures what one stage trains and validates on, and orders it into batches.

    Args:
      config: of the run.
      stages: all of them.
      name: of the stage.
      records: of both splits.
      features: of their clips.
      tokenizer: the language model's.
      mesh: that the batches are put on.
      bridge: as in `Examples`.

    Raises:
      UserError: nothing of the stage's kind has features, or nothing fits.
    """
    stage = stages[name]

    def measured(chosen: list[Record]) -> Examples:
        return Examples(
            chosen,
            features,
            tokenizer,
            stage.prompt,
            max_tokens=stage.max_tokens,
            max_windows=stage.max_windows,
            bridge=bridge,
        )

    of_kind = stage.choose(records.training)
    chosen = [record for record in of_kind if record.clip in features.ids]
    if not chosen:
        raise UserError(
            f"{name}: none of the songs of its {len(of_kind)} records can be read: "
            f"repair them, or set --config.{name}.questions=all"
        )
    examples = measured(chosen)
    batches = Batches(
        examples,
        mixture.weights(config.corpus),
        batch_size=stage.batch_size * stage.accumulate,
        rows=stage.rows * stage.accumulate,
        seed=config.seed,
        mesh=mesh,
    )

    validation, held_out, too_long, without_audio = None, 0, 0, 0
    if stage.validate_every:
        of_kind_held_out = stage.choose(records.validation)
        chosen_held_out = [r for r in of_kind_held_out if r.clip in features.ids]
        if not chosen_held_out:
            raise _nothing_to_validate_on(config, name, stage)
        examples_held_out = measured(chosen_held_out)
        validation = ValidationBatches(
            examples_held_out,
            most=stage.validation_examples,
            batch_size=stage.batch_size,
            rows=stage.rows,
            seed=config.seed,
            mesh=mesh,
        )
        held_out = validation.examples
        too_long = examples_held_out.too_long.total()
        without_audio = len(of_kind_held_out) - len(chosen_held_out)

    order = list(stages)
    return StageData(
        name,
        stage,
        batches,
        validation,
        earlier_steps=sum(
            stages[earlier].steps for earlier in order[: order.index(name)]
        ),
        counts=ExampleCounts(
            clips=len({record.clip for record in chosen}),
            examples=len(examples.records),
            of_corpus=batches.of_corpus,
            repeated=len(chosen) - len({_identity(record) for record in chosen}),
            cut=examples.cut,
            too_long=examples.too_long.total(),
            without_audio=len(of_kind) - len(chosen),
            validation_examples=held_out,
            validation_too_long=too_long,
            validation_without_audio=without_audio,
        ),
    )


def _nothing_to_validate_on(
    config: ConfigDict, name: str, stage: StageConfig
) -> UserError:
    return UserError(
        f"config.corpus.validation_split = {config.corpus.validation_split!r} has "
        f"nothing for {name} to validate on: none of its records is of the kind "
        f"{stage.questions!r} and has audio that can be read; set "
        f"config.{name}.validate_every=0, or name another split"
    )


def _identity(record: Record) -> tuple[str, str, str, str]:
    """What makes two records two different examples to train on."""
    return record.corpus, record.clip, record.question, record.answer


def _digest(records: list[Record]) -> str:
    lines = [json.dumps(_identity(record)) for record in records]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
