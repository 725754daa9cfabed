"""What the stages of a run learn from and look at: records, and batches of them."""

import hashlib
import json
from typing import Any, NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.corpora import mixture
from musilingo_jax.corpora.records import Record
from musilingo_jax.pretrained.tokenizer import Tokenizer
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training.batches import Batches, ValidationBatches
from musilingo_jax.training.examples import Examples
from musilingo_jax.training.stage_config import StageConfig


class Records(NamedTuple):
    """What a config names, before it is known which songs can be heard.

    Attributes:
      training: the training split.
      validation: the validation split; [] if no stage looks at any.
    """

    training: list[Record]
    validation: list[Record]

    @classmethod
    def of(cls, config: ConfigDict, stages: dict[str, StageConfig]) -> "Records":
        """Reads them, and checks all that can be known before the songs are encoded.

        Raises:
          UserError: as in `mixture.split`; a stage finds no record of its kind; or only
            one of `validation_split` and `validate_every` is set.
        """
        split, looking = config.corpus.validation_split, None
        for name, stage in stages.items():
            looking = looking or (name if stage.validate_every else None)
        if looking and not split:
            raise UserError(
                f"config.{looking}.validate_every is {stages[looking].validate_every},"
                " but there is nothing to look at: name a "
                f"config.corpus.validation_split, or set config.{looking}."
                "validate_every=0"
            )
        if split and not looking:
            raise UserError(
                f"config.corpus.validation_split is {split!r}, but no stage looks at "
                f"it: set validate_every of one, as in config.{next(iter(stages))}."
                "validate_every=50, or leave it out: --config.corpus.validation_split="
            )
        records = cls(
            mixture.split(config.corpus, config.corpus.train_split, answered=True),
            mixture.split(config.corpus, split, answered=True) if split else [],
        )
        for name, stage in stages.items():
            if not stage.choose(records.training):
                raise UserError(
                    f"config.{name}.questions = {stage.questions!r} leaves nothing to "
                    f"learn from: none of the {len(records.training)} records is of "
                    f"that kind; set --config.{name}.questions=all, or leave the stage "
                    "out of --config.stages"
                )
            if stage.validate_every and not stage.choose(records.validation):
                raise UserError(_nothing_held_out(config, name, stage))
        return records

    def fingerprints(self) -> dict[str, str]:
        """One for each split."""
        return {
            "records": _digest(self.training),
            "validation_records": _digest(self.validation),
        }

    @property
    def clips(self) -> list[str]:
        """Each once."""
        return list(dict.fromkeys(r.clip for r in (*self.training, *self.validation)))


class StageData(NamedTuple):
    """A stage and what it learns from.

    Attributes:
      name: of the stage.
      stage: its numbers.
      batches: what it learns from.
      validation: what it looks at now and then; None if it never does.
      before: updates of the stages before it.
      about: the content of `examples.json`.
    """

    name: str
    stage: StageConfig
    batches: Batches
    validation: ValidationBatches | None
    before: int
    about: dict[str, Any]


def prepare(
    config: ConfigDict,
    stages: dict[str, StageConfig],
    name: str,
    records: Records,
    features: FeatureCache,
    tokenizer: Tokenizer,
    mesh: Mesh,
) -> StageData:
    """Measures what one stage learns from and looks at.

    Raises:
      UserError: there is nothing of the stage's kind, or nothing that fits.
    """
    stage = stages[name]
    of_kind = stage.choose(records.training)
    chosen = [record for record in of_kind if record.clip in features.ids]
    if not chosen:
        raise UserError(
            f"{name}: none of the songs of its {len(of_kind)} records can be heard: "
            f"mend them, or set --config.{name}.questions=all"
        )

    def measured(records: list[Record]) -> Examples:
        return Examples(
            records,
            features,
            tokenizer,
            stage.prompt,
            max_tokens=stage.max_tokens,
            max_windows=stage.max_windows,
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
    validation, validation_too_long, validation_without_audio = None, 0, 0
    if records.validation and stage.validate_every:
        of_kind_held_out = stage.choose(records.validation)
        held_out = [r for r in of_kind_held_out if r.clip in features.ids]
        if not held_out:
            raise UserError(_nothing_held_out(config, name, stage))
        looked_at = measured(held_out)
        validation = ValidationBatches(
            looked_at,
            most=stage.validation_examples,
            batch_size=stage.batch_size,
            rows=stage.rows,
            seed=config.seed,
            mesh=mesh,
        )
        validation_too_long = looked_at.too_long.total()
        validation_without_audio = len(of_kind_held_out) - len(held_out)
    order = list(stages)
    return StageData(
        name,
        stage,
        batches,
        validation,
        before=sum(stages[earlier].steps for earlier in order[: order.index(name)]),
        about={
            "clips": len({record.clip for record in chosen}),
            "examples": len(examples.records),
            "of_corpus": batches.of_corpus,
            "repeated": len(chosen) - len({_identity(record) for record in chosen}),
            "cut": examples.cut,
            "too_long": examples.too_long.total(),
            "without_audio": len(of_kind) - len(chosen),
            "validation_examples": validation.examples if validation else 0,
            "validation_too_long": validation_too_long,
            "validation_without_audio": validation_without_audio,
        },
    )


def _nothing_held_out(config: ConfigDict, name: str, stage: StageConfig) -> str:
    return (
        f"config.corpus.validation_split = {config.corpus.validation_split!r} has "
        f"nothing for {name} to look at: no record there is of the kind "
        f"{stage.questions!r} and can be heard; set config.{name}.validate_every=0, or "
        "name another split"
    )


def _identity(record: Record) -> tuple[str, str, str, str]:
    """What makes it another example to learn from."""
    return record.corpus, record.clip, record.question, record.answer


def _digest(records: list[Record]) -> str:
    lines = [json.dumps(_identity(record)) for record in records]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
