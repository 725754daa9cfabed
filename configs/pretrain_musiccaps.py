"""First stage on MusicCaps: the adapter learns to caption clips of ten seconds.

    python -m musilingo_jax.train --config=configs/pretrain_musiccaps.py

Purpose: a small pretraining, for those who do not have LP-MusicCaps-MSD. There is no
text around the audio: the language model only continues it with a caption of at most 32
tokens and a newline.

Data: 2,663 clips to train on, described by musicians, and 2,858 to test. The sound must
be obtained from YouTube, and some of it no longer exists:

    python -m musilingo_jax.corpora.build musiccaps --layout
    python -m musilingo_jax.corpora.build musiccaps --source=DIR --audio=DIR --out=corpora
    python -m musilingo_jax.cache --config=configs/features/mert_330m.py:corpora/musiccaps

The last command is optional: training makes missing features (12 KB a clip).
MusicInstruct is about the same clips and does not encode them again.

Published: learning rate 1e-4 → 8e-5, 4 epochs of 1,000 micro-batches of 2, each of
which is an update, and a warm-up of 1,000. So steps = 4,000, and 8,000 clips are drawn:
each about three times.

Differences: those in `docs/differences.md`. The original cannot run this stage: its
data set adds an instruction where the template has no place for one. With two examples per update, as published,
the loss of single updates is noisy.

Expected: 13.5 GB of memory for the weights in bfloat16, over all devices together
(`--config.model.quantization=int8`: half), and less than 1 GB for the rest. An update
of some 70 tokens takes as long as reading the weights three times: forward, again for
`remat`, and backward. At 700 GB/s that is 60 ms; this is an estimate, not a
measurement.

Vicuna 7B v0 is taken from a released MusiLingo, which contains it merged; one that you
merged yourself is `--config.model.language_model=FOLDER`. A second stage starts from
this one with `--config.model.adapter=runs/pretrain_musiccaps`.
"""  # noqa: E501

from ml_collections import ConfigDict

from musilingo_jax.training import original


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is not used."""
    del arg
    config = original.experiment("runs/pretrain_musiccaps")
    config.corpus.path = "corpora/musiccaps"

    config.stages = ("stage1",)
    stage1 = config.stage1 = original.first_stage()
    stage1.batch_size = 2
    stage1.steps = 4 * 1_000
    stage1.warmup_steps = 1_000
    stage1.checkpoint_every = 500
    return config
