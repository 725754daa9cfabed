"""LLark with a LoRA in place of full tuning: frames, learnt marks, annotated pairs.

    python -m musilingo_jax.train --config=configs/train_llark_lora.py

Purpose: a language model that hears ten vectors a second, and learns to speak of them.

Data: `corpora/llark`, a corpus of your own pairs; the published 1.2 million pairs about
164,000 tracks were not released. `docs/instruct.md` says how pairs are made from
captions and annotations.

Published: all layers of Llama-2-7b-chat, the projection and two word embeddings learn;
32 examples in an update, 100,000 updates, a learning rate of 5e-5 after 3,000 updates
of warm-up, then half a cosine to 0; gradients are clipped to 1, no weight decay;
Jukebox hears 23.8 s at 10.1 vectors a second. Audio stands before or after the
question, by chance. The release has flags for a LoRA of rank 64, alpha 16 on all maps,
which no published run used: they are used here.

Differences: MERT hears, 25 s at 10.7 vectors a second; the loss counts the answer and
its end sign only, and not two stray tokens of the next turn; it is summed over an
update and divided once; frozen weights are bfloat16, what learns is float32.

Expected: time was not measured at this size, and no score was published for a LoRA.
"""

from ml_collections import ConfigDict

from musilingo_jax.models.lora import MAPS
from musilingo_jax.training import llark


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is not used."""
    del arg
    config = llark.experiment("runs/train_llark_lora")
    config.corpus.path = "corpora/llark"
    config.stages = ("stage1",)
    stage = config.stage1 = llark.stage()
    stage.tuning.update(rank=64, alpha=16.0, targets=MAPS)
    return config
