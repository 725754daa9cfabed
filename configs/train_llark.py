"""LLark: frames, learnt marks, annotated pairs, and all layers of LLaMA 2 learn.

    python -m musilingo_jax.train --config=configs/train_llark.py

Purpose: the published LLark, whose authors released neither weights nor pairs.

Data: `corpora/llark`, as in `configs/train_llark_lora.py`.

Published: all layers of Llama-2-7b-chat and its last norm, the projection and two word
embeddings learn; 32 examples in an update, 100,000 updates, a learning rate of 5e-5
after 3,000 updates of warm-up, then half a cosine to 0; gradients are clipped to 1, no
weight decay; Jukebox hears 23.8 s at 10.1 vectors a second. Audio stands before or
after the question, by chance. Weights and moments were bfloat16, which rounds most
steps away; 54 hours on 4 A100.

Differences: what learns is float32, and products take it in bfloat16; otherwise as in
`configs/train_llark_lora.py`.

Expected: time was not measured at this size. No published score can be compared: the
questions that were asked for them were not released.
"""

from ml_collections import ConfigDict

from musilingo_jax.training import llark


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is not used."""
    del arg
    config = llark.experiment("runs/train_llark")
    config.corpus.path = "corpora/llark"
    config.stages = ("stage1",)
    stage = config.stage1 = llark.stage()
    stage.learns_layers = True
    stage.first_moment = "bfloat16"
    stage.keep = 1
    return config
