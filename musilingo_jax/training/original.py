"""What all published stages of MusiLingo's training have in common.

The configs of the stages (`configs/pretrain_*.py`, `configs/finetune_*.py`) start from
these sections and add their own settings. The numbers are those of the original's
configs and code (Deng et al. 2023, "MusiLingo"), which counts micro-batches on one GPU
where this program counts updates:

    original    epochs × micro-batches per epoch, accumulated by n
    here        steps = epochs × micro-batches ÷ n, rounded down

Where training differs from the original, and why, is in docs/differences.md.
"""

from ml_collections import ConfigDict

from musilingo_jax.answering import released
from musilingo_jax.pretrained import number_type
from musilingo_jax.training import sections

ENCODER = "m-a-p/MERT-v1-330M"
# Contains Vicuna 7B v0 merged, which is otherwise made from LLaMA 7B and a delta.
LANGUAGE_MODEL = "m-a-p/MusiLingo-long-v1"


def experiment(run: str) -> ConfigDict:
    """A config without the corpus and the stages.

    Args:
      run: folder of the run.
    """
    config = released_experiment(run)
    config.model.encoder = ENCODER
    config.model.language_model = LANGUAGE_MODEL
    config.model.adapter = "random"

    # The cache of `configs/features/mert_330m.py`, which all of these configs share.
    config.features.shard_clips = 1024
    config.features.cache = "runs/features/mert_330m"

    # Runs unchanged on up to 32 devices: micro-batches are too small to be split over
    # many devices, but weights are not.
    config.mesh = ConfigDict({"data": 1, "fsdp": 1, "tensor": -1})
    return config


def released_experiment(run: str) -> ConfigDict:
    """A config for a released model, without the model, the corpus and the stages.

    Args:
      run: folder of the run, which also holds the features.
    """
    return sections.experiment(
        run,
        dtype=number_type.AUTO,
        features=released.FEATURES,
        generate=released.GENERATE,
    )


def first_stage() -> ConfigDict:
    """Captions, with no text around the audio: <s> + audio + caption + newline."""
    stage = _large(sections.first_stage())
    stage.learning_rate = 1e-4
    stage.final_learning_rate = 8e-5
    return stage


def second_stage() -> ConfigDict:
    """Questions and answers, in a conversation."""
    stage = _large(sections.second_stage())
    stage.max_tokens = 320  # 160 of answer, 7 of audio, about 130 of question.
    stage.learning_rate = 3e-5
    stage.final_learning_rate = 1e-5
    return stage


def _large(stage: ConfigDict) -> ConfigDict:
    """What both published stages have in common."""
    stage.rows = 1  # All examples of a micro-batch in one row.
    stage.max_windows = released.MAX_WINDOWS
    stage.remat = "nothing"
    stage.query_block = 512
    stage.key_block = 512
    stage.checkpoint_every = 100
    stage.validation_examples = 512
    stage.log_every = 10
    return stage
