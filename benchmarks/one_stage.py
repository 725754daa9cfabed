"""The configuration of a stage whose updates are measured."""

from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.models.attention_blocks import DEFAULT
from musilingo_jax.models.lora import NOTHING
from musilingo_jax.training.stage_config import StageConfig

LEARNING_RATE, WEIGHT_DECAY = 3e-5, 0.05


def stage_of(
    prompt: PromptConfig,
    *,
    batch_size: int,
    rows: int,
    accumulate: int,
    max_tokens: int,
    max_windows: int,
    remat: str,
) -> StageConfig:
    """A stage at one learning rate; arguments as in `StageConfig`."""
    return StageConfig(
        prompt=prompt,
        questions="all",
        steps=1000,
        batch_size=batch_size,
        rows=rows,
        accumulate=accumulate,
        max_tokens=max_tokens,
        max_windows=max_windows,
        learning_rate=LEARNING_RATE,
        final_learning_rate=LEARNING_RATE,
        warmup_learning_rate=LEARNING_RATE,
        warmup_steps=1,
        weight_decay=WEIGHT_DECAY,
        beta2=0.999,
        first_moment="float32",
        max_gradient_norm=0.0,
        learns_bridge=True,
        learns_layers=False,
        tuning=NOTHING,
        remat=remat,
        query_block=DEFAULT.queries,
        key_block=DEFAULT.keys,
        checkpoint_every=1,
        validate_every=0,
        validation_examples=1,
        log_every=1,
        keep=1,
    )
