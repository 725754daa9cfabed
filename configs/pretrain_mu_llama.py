"""First stage of MU-LLaMA: the bridge learns from MusicCaps as questions.

    python -m musilingo_jax.train --config=configs/pretrain_mu_llama.py

Purpose: the other way of letting a language model hear (`models/bridges/
gated_values.py`): 25 averaged states of the encoder become one vector, which the upper
20 layers of LLaMA 2 add through their own value maps. 608 million numbers learn; the
language model is frozen.

Data: MusicQA's split "pretrain", 42,867 questions about 4,763 clips of MusicCaps, its
test clips among them, so that MusicCaps is no test set for this model:

    python -m musilingo_jax.corpora.build music_qa --layout
    python -m musilingo_jax.corpora.build music_qa --source=DIR --audio=DIR --out=corpora

Published: 1 example × 4 accumulated, AdamW with betas of 0.9 and 0.95 and a decay of
0.05, a learning rate of 1e-4 · 4 / 256 = 1.56e-6 after a warm-up from 0, then half a
cosine to 0; 150 "epochs" of a fiftieth of the data, 5 of them warm-up: about 71,100
updates. AdamW moves a number by its rate at most, so the gates, which begin at 0, reach
0.056 at most: the music is a whisper. A higher rate is a flag:
`--config.stage1.learning_rate=1e-4`.

Differences: Alpaca's 52,002 instructions without music, half of the published pool, are
left out, and the updates are as many; examples have 256 tokens instead of 96, which cut
half of the answers and their end; the prompt has no "Input" section, in which theirs
has the text "<built-in function input>"; the mean over an update is over its targets;
no SpecAugment in the frozen encoder.

Expected: 7.3 GB for what learns and its moments besides the language model. Time was
not measured at this size.
"""  # noqa: E501

from ml_collections import ConfigDict

from musilingo_jax.training import mu_llama


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is not used."""
    del arg
    config = mu_llama.experiment("runs/pretrain_mu_llama")
    config.corpus.path = "corpora/music_qa"
    config.corpus.train_split = "pretrain"

    config.stages = ("stage1",)
    stage1 = config.stage1 = mu_llama.stage()
    stage1.batch_size = 4
    stage1.max_tokens = 384
    stage1.learning_rate = 1e-4 * 4 / 256
    stage1.steps = 71_100
    stage1.warmup_steps = 71_100 * 5 // 150
    return config
