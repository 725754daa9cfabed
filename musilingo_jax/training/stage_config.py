"""One stage of training: its numbers, its examples, its optimiser."""

import math
from dataclasses import dataclass, fields

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.answering.question_format import QUESTIONS
from musilingo_jax.corpora.records import Record
from musilingo_jax.runtime.errors import UserError


@dataclass(frozen=True)
class StageConfig:
    """A section of the config, as checked at the door.

    Attributes:
      prompt: the conversation around each song.
      questions: which records are learnt from: those without a question ("captions"),
        those with one ("questions"), or "all".
      steps: updates of the adapter.
      batch_size: examples on all devices together, at once.
      rows: rows of tokens that these examples are packed into; as many as `batch_size`
        for one example a row, and a quarter or an eighth of it for next to no padding.
        With fewer rows each is longer, and the mask and the scores of attention grow
        with the square of that: not above a thousand tokens or so without need.
      accumulate: this many batches make one update.
      max_tokens: longest sequence; longer examples are left out and counted.
      max_windows: longer songs are cropped to this many windows, anew each time.
      learning_rate: the highest, above 0, reached after the warm-up.
      final_learning_rate: the lowest, reached by a cosine at the last step.
      warmup_learning_rate: the first.
      warmup_steps: updates from the first to the highest.
      weight_decay: AdamW's, on matrices only.
      remat: whether layers are computed again in the backward pass instead of kept:
        less memory, a third more time.
      checkpoint_every: updates between two checkpoints.
      validate_every: updates between two looks at the validation split; 0 for none.
      validation_examples: at most so many of its examples are looked at.
      log_every: updates between two rows of metrics.jsonl.
      keep: how many of the newest checkpoints stay.
    """

    prompt: PromptConfig
    questions: str
    steps: int
    batch_size: int
    rows: int
    accumulate: int
    max_tokens: int
    max_windows: int
    learning_rate: float
    final_learning_rate: float
    warmup_learning_rate: float
    warmup_steps: int
    weight_decay: float
    remat: bool
    checkpoint_every: int
    validate_every: int
    validation_examples: int
    log_every: int
    keep: int

    @classmethod
    def from_config(cls, config: ConfigDict, name: str) -> "StageConfig":
        """The section `name` of `config`.

        Raises:
          UserError: the section or a key is missing, unknown or out of range.
        """
        if name not in config:
            raise UserError(
                f"config.stages names {name!r}, but there is no such section"
            )
        values = _checked(cls, config[name].to_dict(), f"config.{name}")
        prompt = _checked(PromptConfig, values["prompt"], f"config.{name}.prompt")
        stage = cls(**{**values, "prompt": PromptConfig(**prompt)})
        if stage.questions not in QUESTIONS:
            raise UserError(
                f"config.{name}.questions is {stage.questions!r}: choose one of "
                f"{', '.join(QUESTIONS)}"
            )
        for field in fields(cls):
            value = getattr(stage, field.name)
            least = 0 if field.name in ("warmup_steps", "validate_every") else 1
            if field.type is int and value < least:
                raise UserError(
                    f"config.{name}.{field.name} is {value}: it must be {least} or more"
                )
        if stage.prompt.max_answer_tokens < 1:
            raise UserError(
                f"config.{name}.prompt.max_answer_tokens is "
                f"{stage.prompt.max_answer_tokens}: it must be 1 or more"
            )
        if not 0 < stage.learning_rate < math.inf:
            raise UserError(
                f"config.{name}.learning_rate is {stage.learning_rate}: it must be a "
                "number above 0"
            )
        if not 0 <= stage.weight_decay < math.inf:
            raise UserError(
                f"config.{name}.weight_decay is {stage.weight_decay}: it must be a "
                "number, 0 or more"
            )
        for key in ("final_learning_rate", "warmup_learning_rate"):
            if not 0 <= getattr(stage, key) <= stage.learning_rate:
                raise UserError(
                    f"config.{name}.{key} is {getattr(stage, key)}: it must be from 0 "
                    f"to config.{name}.learning_rate, {stage.learning_rate}"
                )
        if stage.rows > stage.batch_size:
            raise UserError(
                f"config.{name}.rows is {stage.rows}: it must be at most batch_size, "
                f"{stage.batch_size}, since each row holds an example or more"
            )
        if stage.warmup_steps >= stage.steps:
            raise UserError(
                f"config.{name}.warmup_steps is {stage.warmup_steps}: it must be less "
                f"than steps, {stage.steps}"
            )
        return stage

    def check_rows(self, name: str, mesh: Mesh) -> None:
        """Checks that every device gets equally many rows.

        Raises:
          UserError: it does not work out.
        """
        shards = mesh.shape["data"] * mesh.shape["fsdp"]
        if self.rows % shards:
            raise UserError(
                f"config.{name}.rows is {self.rows}, which cannot be dealt "
                f"out to {shards} devices (mesh.data × mesh.fsdp): make it a multiple "
                f"of {shards}, or set config.mesh"
            )

    def choose(self, records: list[Record]) -> list[Record]:
        """The records that this stage learns from."""
        return [record for record in records if QUESTIONS[self.questions](record)]

    def schedule(self) -> optax.Schedule:
        """Updates done so far → learning rate: a line up, then half a cosine down."""
        return optax.warmup_cosine_decay_schedule(
            init_value=self.warmup_learning_rate,
            peak_value=self.learning_rate,
            warmup_steps=self.warmup_steps,
            decay_steps=self.steps,
            end_value=self.final_learning_rate,
        )

    def optimiser(self) -> optax.GradientTransformation:
        """AdamW (Loshchilov & Hutter 2019) with MusiLingo's moments and no clipping."""
        return optax.adamw(
            self.schedule(),
            b1=0.9,
            b2=0.999,
            eps=1e-8,
            weight_decay=self.weight_decay,
            mask=lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree),
        )


def _checked(kind: type, values: dict, where: str) -> dict:
    """The values, if their keys are the fields of the dataclass `kind`."""
    expected = {field.name for field in fields(kind)}
    if missing := sorted(expected - values.keys()):
        raise UserError(f"{where} lacks {', '.join(missing)}")
    if unknown := sorted(values.keys() - expected):
        raise UserError(
            f"{where} has {', '.join(unknown)}, which nothing reads: is it misspelt?"
        )
    return values
