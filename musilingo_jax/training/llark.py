"""What the trainings of LLark have in common.

The numbers are those of its training script and code (Gardner et al. 2024, "LLark: A
Multimodal Instruction-Following Language Model for Music"), which were published
without weights, features or pairs. `configs/train_llark_lora.py` starts from these
sections.
"""

from dataclasses import replace

from ml_collections import ConfigDict

from musilingo_jax.answering import released
from musilingo_jax.answering.config import GREEDY
from musilingo_jax.answering.prompts import AUDIO
from musilingo_jax.pretrained import number_type
from musilingo_jax.training import original, sections

LANGUAGE_MODEL = "meta-llama/Llama-2-7b-chat-hf"

# The text of LLaVA's first version, whose turns end with "###".
TEMPLATE = (
    "A chat between a curious human and an artificial intelligence assistant. The "
    "assistant gives helpful, detailed, and polite answers to the human's questions."
    "\n\n### Human: {}\n### Assistant:"
)
END_SIGN = "\n###"
AUDIO_FIRST, AUDIO_LAST = f"{AUDIO}\n{{}}", f"{{}}\n{AUDIO}"

# MERT makes 75 frames a second; 7 of them are 10.7 vectors a second, near the published
# 10.1 of Jukebox. A clip is heard for 25 s at most.
WINDOW_FRAMES, MAX_WINDOWS = 7, 268
# A whole clip in one pass of the encoder.
FEATURES = replace(
    released.FEATURES, window_frames=WINDOW_FRAMES, chunk_windows=MAX_WINDOWS
)


def experiment(run: str) -> ConfigDict:
    """A config without the corpus and the stages.

    Args:
      run: folder of the run.
    """
    config = sections.experiment(
        run,
        dtype=number_type.AUTO,
        features=FEATURES,
        generate=replace(GREEDY, max_new_tokens=512),
    )
    config.model.encoder = original.ENCODER
    config.model.language_model = LANGUAGE_MODEL
    config.model.adapter = "random"
    config.bridge = ConfigDict({"marks": True})
    config.features.shard_clips = 1024
    config.features.cache = "runs/features/mert_330m_frames"
    config.mesh = ConfigDict({"data": 1, "fsdp": -1, "tensor": 1})
    return config


def stage() -> ConfigDict:
    """The one stage: all questions, audio before or after them."""
    stage = sections.second_stage()
    prompted(stage)
    stage.questions = "all"
    stage.batch_size = 32
    stage.rows = 8
    stage.max_tokens = 2048
    stage.max_windows = MAX_WINDOWS
    stage.steps = 100_000
    stage.warmup_steps = 3_000
    stage.warmup_learning_rate = 0.0
    stage.learning_rate = 5e-5
    stage.final_learning_rate = 0.0
    stage.weight_decay = 0.0
    stage.max_gradient_norm = 1.0
    stage.remat = "nothing"
    stage.query_block = 512
    stage.key_block = 512
    stage.checkpoint_every = 1_000
    stage.validation_examples = 512
    stage.log_every = 10
    return stage


def prompted(stage: ConfigDict) -> None:
    """Gives a stage the published text."""
    stage.prompt.template = TEMPLATE
    stage.prompt.instruction = AUDIO_FIRST
    stage.prompt.other_instruction = AUDIO_LAST
    stage.prompt.end_sign = END_SIGN
    stage.prompt.max_answer_tokens = 1024
