"""The embedded models with LLark's bridge: eight vectors a second between two marks.

    python -m musilingo_jax.train --config=configs/tiny_llark.py
    python -m musilingo_jax.evaluate --config=configs/tiny_llark.py

Purpose: the third way of hearing beside `configs/tiny.py` and
`configs/tiny_mu_llama.py`, on the same songs, encoder, language model and scores. The
bridge learns from captions and questions, and a LoRA of rank 8 with it.

Data: the embedded corpus, 64 clips of rendered music to train on and 32 to test.

Differences from `configs/tiny.py`: windows of 3 frames, 0.12 s, and not of 108; the
audio stands before the question, or after it. The text around it is that of
`configs/tiny.py`, which the embedded language model knows.
"""

from ml_collections import ConfigDict

from musilingo_jax.training import embedded


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is not used."""
    del arg
    config = embedded.experiment("runs/tiny_llark")
    config.model.adapter = "random"
    config.corpus.path = "musilingo-tiny-corpus"
    config.features.window_frames = 3
    config.features.chunk_windows = 108
    config.bridge = ConfigDict({"marks": True})

    config.stages = ("stage1",)
    stage = config.stage1 = embedded.second_stage()
    stage.questions = "all"
    stage.prompt.instruction = "<Audio><AudioHere></Audio> {}"
    stage.prompt.other_instruction = "{} <Audio><AudioHere></Audio>"
    stage.tuning.rank = 8
    stage.tuning.alpha = 8.0
    stage.batch_size = 16
    stage.rows = 8
    stage.max_tokens = 400
    stage.max_windows = 240
    stage.steps = 400
    stage.warmup_steps = 40
    stage.learning_rate = 3e-3
    stage.final_learning_rate = 3e-4
    stage.weight_decay = 0.0
    stage.max_gradient_norm = 1.0
    return config
