"""What both published stages of MU-LLaMA's training have in common.

The numbers are those of its scripts and code (Liu et al. 2023, "Music Understanding
LLaMA"), which leave the batch on one GPU, 1 example, and the learning rate, `blr ·
batch / 256`, to be computed. `configs/pretrain_mu_llama.py` and
`configs/finetune_mu_llama.py` start from these sections.
"""

from dataclasses import replace

from ml_collections import ConfigDict

from musilingo_jax.answering import released
from musilingo_jax.pretrained import number_type
from musilingo_jax.training import original, sections

LANGUAGE_MODEL = "meta-llama/Llama-2-7b-hf"


def experiment(run: str) -> ConfigDict:
    """A config without the corpus and the stages.

    Args:
      run: folder of the run.
    """
    config = sections.experiment(
        run,
        dtype=number_type.AUTO,
        features=released.MU_LLAMA_FEATURES,
        generate=released.MU_LLAMA_GENERATE,
    )
    config.model.encoder = original.ENCODER
    config.model.language_model = LANGUAGE_MODEL
    config.model.adapter = "random"
    config.bridge = ConfigDict({"query_layers": 20, "blocks": 3, "block_width": 16_384})
    config.features.shard_clips = 1024
    config.features.cache = "runs/features/mert_330m_layers"
    # Runs unchanged on up to 32 devices.
    config.mesh = ConfigDict({"data": 1, "fsdp": 1, "tensor": -1})
    return config


def stage() -> ConfigDict:
    """What both stages have in common."""
    stage = sections.second_stage()
    prompt = replace(released.MU_LLAMA_PROMPT, max_answer_tokens=256)
    stage.prompt.update(
        template=prompt.template,
        instruction=prompt.instruction,
        end_sign=prompt.end_sign,
        max_answer_tokens=prompt.max_answer_tokens,
    )
    stage.questions = "all"
    stage.rows = 1  # All examples of a batch in one row.
    stage.max_windows = released.MAX_WINDOWS  # Of no effect: states are not cropped.
    stage.warmup_learning_rate = 0.0
    stage.final_learning_rate = 0.0
    stage.beta2 = 0.95
    stage.remat = "nothing"
    stage.query_block = 512
    stage.key_block = 512
    stage.checkpoint_every = 500
    stage.validation_examples = 512
    stage.log_every = 10
    return stage
