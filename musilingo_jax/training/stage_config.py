"""The settings of one training stage, its learning rate schedule and its optimiser."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import optax
from flax import nnx
from jax.sharding import AbstractMesh, Mesh

from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.answering.question_format import QUESTIONS
from musilingo_jax.corpora.records import Record
from musilingo_jax.models.attention_blocks import DEFAULT, SIZES, Blocks
from musilingo_jax.models.lora import NOTHING, TuningConfig
from musilingo_jax.models.remat import POLICIES
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import plain, read_section, setting
from musilingo_jax.runtime.sharding import row_shares

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclass(frozen=True)
class StageConfig:
    """The section of a stage, such as `config.stage1`.

    An update trains on `batch_size * accumulate` examples. They are computed in
    `accumulate` batches, one after another, each packed into `rows` rows of tokens.

    Attributes:
      prompt: the text around the audio.
      questions: which records the stage trains on, a key of `QUESTIONS`.
      steps: number of updates.
      batch_size: examples per batch, over all devices.
      rows: rows of tokens per batch. With as many rows as examples, each row holds one
        example; with a quarter or an eighth as many, almost no place is padding. Fewer
        rows are longer, and attention's mask and scores grow with the square of their
        length: above a thousand tokens or so, use more rows.
      accumulate: batches per update.
      max_tokens: longest example in tokens, audio included; longer ones are left out
        and counted.
      max_windows: longest audio in windows; longer songs are cropped to this length, at
        another place each time.
      learning_rate: peak learning rate, reached at the end of the warm-up.
      final_learning_rate: learning rate at the last update, reached by half a cosine.
      warmup_learning_rate: learning rate of the first update.
      warmup_steps: updates from the first learning rate to the peak.
      weight_decay: AdamW's weight decay, applied to matrices only.
      beta2: AdamW's second beta, of the squares of gradients.
      first_moment: type in which AdamW keeps the mean of gradients. That of their
        squares stays float32: in bfloat16, a decay of a thousandth in each update would
        be rounded away.
      max_gradient_norm: longer gradients are scaled down to this length, over all that
        learns; 0: none are.
      learns_bridge: whether the bridge learns.
      learns_layers: whether all layers of the language model and its last norm learn,
        in float32; its word embeddings and its head never do.
      tuning: what learns beside the language model's weights.
      remat: what the backward pass keeps of each layer, a key of `remat.POLICIES`: the
        less it keeps, the more it computes again.
      query_block: queries of a block of attention on TPUs, at most.
      key_block: keys of a block of attention on TPUs, at most.
      checkpoint_every: updates between two checkpoints.
      validate_every: updates between two validations; 0 for no validation.
      validation_examples: validate on at most this many examples.
      log_every: updates between two rows of metrics.jsonl.
      keep: number of newest checkpoints to keep.
    """

    prompt: PromptConfig
    questions: str = setting(choices=tuple(QUESTIONS))
    steps: int = setting(at_least=1)
    batch_size: int = setting(at_least=1)
    rows: int = setting(at_least=1)
    accumulate: int = setting(at_least=1)
    max_tokens: int = setting(at_least=1)
    max_windows: int = setting(at_least=1)
    learning_rate: float = setting(above=0)
    final_learning_rate: float = setting(at_least=0)
    warmup_learning_rate: float = setting(at_least=0)
    warmup_steps: int = setting(at_least=0)
    weight_decay: float = setting(at_least=0)
    beta2: float = setting(above=0, at_most=1, before=0.999)
    first_moment: str = setting(choices=("float32", "bfloat16"), before="float32")
    max_gradient_norm: float = setting(at_least=0, before=0.0)
    learns_bridge: bool = setting(before=True)
    learns_layers: bool = setting(before=False)
    tuning: TuningConfig = setting(before=NOTHING)
    remat: str = setting(choices=tuple(POLICIES))
    query_block: int = setting(choices=SIZES, before=DEFAULT.queries)
    key_block: int = setting(choices=SIZES, before=DEFAULT.keys)
    checkpoint_every: int = setting(at_least=1)
    validate_every: int = setting(at_least=0)
    validation_examples: int = setting(at_least=1)
    log_every: int = setting(at_least=1)
    keep: int = setting(at_least=1)

    @classmethod
    def from_config(cls, config: "ConfigDict", name: str) -> "StageConfig":
        """Reads and checks the section `name` of `config`.

        Raises:
          UserError: the section or a key is missing, unknown or out of bounds.
        """
        if name not in config:
            raise UserError(
                f"config.stages names {name!r}, but there is no such section"
            )
        section = plain(config[name], f"config.{name}")
        if isinstance(section.get("remat"), bool):  # Of version 0.1.
            section["remat"] = "nothing" if section["remat"] else "everything"
        stage = read_section(cls, section, f"config.{name}")
        stage._check_pairs(f"config.{name}")
        return stage

    @property
    def learns(self) -> tuple[str, ...]:
        """The parts that learn, as `Parts` names them."""
        each = {
            "bridge": self.learns_bridge,
            "llama": self.learns_layers,
            "tuning": self.tuning.anything,
        }
        return tuple(name for name, learns in each.items() if learns)

    @property
    def blocks(self) -> Blocks:
        """Of attention on TPUs."""
        return Blocks(queries=self.query_block, keys=self.key_block)

    def _check_pairs(self, where: str) -> None:
        """Checks the settings that bound each other."""
        for key in ("final_learning_rate", "warmup_learning_rate"):
            if getattr(self, key) > self.learning_rate:
                raise UserError(
                    f"{where}.{key} is {getattr(self, key)}: it must be at most "
                    f"{where}.learning_rate, {self.learning_rate}"
                )
        if self.rows > self.batch_size:
            raise UserError(
                f"{where}.rows is {self.rows}: it must be at most {where}.batch_size, "
                f"{self.batch_size}, since each row holds at least one example"
            )
        if self.warmup_steps >= self.steps:
            raise UserError(
                f"{where}.warmup_steps is {self.warmup_steps}: it must be less than "
                f"{where}.steps, {self.steps}"
            )

    def check_rows(self, name: str, mesh: Mesh | AbstractMesh) -> None:
        """Checks that every device gets the same number of rows.

        Args:
          name: of the stage, for the message.
          mesh: that the stage is trained on.

        Raises:
          UserError: the rows are not divisible by the devices that share them.
        """
        devices = row_shares(mesh.shape)
        if self.rows % devices:
            raise UserError(
                f"config.{name}.rows is {self.rows}, which is not divisible by "
                f"{devices} devices (mesh.data × mesh.fsdp): make it a multiple of "
                f"{devices}, or set config.mesh"
            )

    def choose(self, records: list[Record]) -> list[Record]:
        """The records that this stage trains on."""
        return [record for record in records if QUESTIONS[self.questions](record)]

    def schedule(self) -> optax.Schedule:
        """Number of earlier updates → learning rate: a line up, half a cosine down."""
        return optax.warmup_cosine_decay_schedule(
            init_value=self.warmup_learning_rate,
            peak_value=self.learning_rate,
            warmup_steps=self.warmup_steps,
            decay_steps=self.steps,
            end_value=self.final_learning_rate,
        )

    def optimiser(self) -> optax.GradientTransformation:
        """AdamW (Loshchilov & Hutter 2019) with a first beta of 0.9."""
        adamw = optax.adamw(
            self.schedule(),
            b1=0.9,
            b2=self.beta2,
            eps=1e-8,
            weight_decay=self.weight_decay,
            mask=_matrices,
            mu_dtype=self.first_moment,
        )
        if not self.max_gradient_norm:
            return adamw
        return optax.chain(optax.clip_by_global_norm(self.max_gradient_norm), adamw)


def _matrices(tree: Any) -> Any:
    """True for each parameter that has two axes besides that of stacked layers."""

    def is_matrix(parameter: Any) -> Any:
        axes = parameter.get_metadata("axes")
        return parameter.replace(len(axes) > 1)

    return jax.tree.map(
        is_matrix, tree, is_leaf=lambda node: isinstance(node, nnx.Variable)
    )


def read_stages(config: "ConfigDict") -> dict[str, StageConfig]:
    """Stage name → settings, in the order of training.

    Raises:
      UserError: no stage is named, or one of them twice; or as in
        `StageConfig.from_config`.
    """
    stages = {name: StageConfig.from_config(config, name) for name in config.stages}
    if not stages:
        raise UserError("config.stages is empty: name at least one stage")
    if len(stages) < len(config.stages):
        raise UserError(
            f"config.stages is {tuple(config.stages)!r}: name each stage once, and to "
            "train one for longer, set its steps"
        )
    return stages
