"""The embedded models with MU-LLaMA's bridge: its two stages in about a minute.

    python -m musilingo_jax.train --config=configs/tiny_mu_llama.py
    python -m musilingo_jax.evaluate --config=configs/tiny_mu_llama.py

Purpose: the other way of hearing beside `configs/tiny.py`, on the same songs, encoder,
language model and scores. First the bridge learns, from captions and questions; then a
LoRA of rank 8 learns beside the frozen language model. One vector per clip, the mean
over all of it, is all that is heard.

Data: the embedded corpus, 64 clips of rendered music to train on and 32 to test.

Differences from `configs/tiny.py`: the features are the averaged states of the encoder,
the prompt has no place for audio, and learning rates are higher.
"""

from ml_collections import ConfigDict

from musilingo_jax.training import embedded


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is not used."""
    del arg
    config = embedded.experiment("runs/tiny_mu_llama")
    config.model.adapter = "random"
    config.corpus.path = "musilingo-tiny-corpus"
    config.features.reduction = "layers"
    config.bridge = ConfigDict({"query_layers": 3, "blocks": 1, "block_width": 256})

    config.stages = ("stage1", "stage2")
    stage1 = config.stage1 = embedded.second_stage()
    stage2 = config.stage2 = embedded.second_stage()
    for stage in (stage1, stage2):
        stage.prompt.instruction = "{}"
        stage.questions = "all"
        stage.batch_size = stage.rows = 16
    stage1.steps = 300
    stage1.warmup_steps = 30
    stage1.learning_rate = 1e-2
    stage1.final_learning_rate = 1e-3

    stage2.learns_bridge = False
    stage2.tuning.rank = 8
    stage2.tuning.alpha = 8.0
    stage2.steps = 150
    stage2.warmup_steps = 15
    stage2.learning_rate = 3e-3
    stage2.final_learning_rate = 3e-4
    return config
