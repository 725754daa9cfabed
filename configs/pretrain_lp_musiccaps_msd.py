"""First stage on LP-MusicCaps-MSD: the adapter learns to caption half a million songs.

    python -m musilingo_jax.train --config=configs/pretrain_lp_musiccaps_msd.py

Purpose: the start of the published adapters. There is no text around the audio: the
language model only continues it with a caption of at most 32 tokens and a newline.

Data: captions (`caption_writing`) of 444,865 songs to train on and 34,481 to validate,
and the songs' previews of thirty seconds. `--layout` says where to get them:

    python -m musilingo_jax.corpora.build lp_musiccaps_msd --layout
    python -m musilingo_jax.corpora.build lp_musiccaps_msd --source=DIR --audio=DIR --out=corpora
    python -m musilingo_jax.cache --config=configs/features/mert_330m.py:corpora/lp_musiccaps_msd

Encode first, on several machines if possible (`--task`, `--tasks`): to encode 513,977
songs is by far the longest part of the work. It leaves about 15 GB of features (28 KB a
song). Otherwise training encodes them, on the machine that it runs on.

Published: learning rate 1e-4 → 8e-5, 4 epochs of 5,000 micro-batches of 8, each of
which is an update, and a warm-up of 5,000. So steps = 20,000, and 160,000 songs are
drawn: about a third of all, once each.

Differences: those in `docs/differences.md`; and every 1,000 updates the loss of 512
songs of the split "valid" is computed, which the original does not use.

Expected: 13.5 GB of memory for the weights in bfloat16, over all devices together
(`--config.model.quantization=int8`: half), and less than 1 GB for the rest, as a
micro-batch has at most 320 tokens. Time was not measured at this size;
`musilingo_jax.plan` estimates it:

    python -m musilingo_jax.plan --config=configs/pretrain_lp_musiccaps_msd.py --topology=v5e:2x4

Vicuna 7B v0 is taken from a released MusiLingo, which contains it merged; one that you
merged yourself is `--config.model.language_model=FOLDER`. The second stage
(`configs/finetune_*.py`) starts from `runs/pretrain_lp_musiccaps_msd`.
"""  # noqa: E501

from ml_collections import ConfigDict

from musilingo_jax.training import original


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is not used."""
    del arg
    config = original.experiment("runs/pretrain_lp_musiccaps_msd")
    config.corpus.path = "corpora/lp_musiccaps_msd"
    config.corpus.validation_split = "valid"

    config.stages = ("stage1",)
    stage1 = config.stage1 = original.first_stage()
    stage1.batch_size = 8
    stage1.steps = 4 * 5_000
    stage1.warmup_steps = 5_000
    stage1.checkpoint_every = 500
    stage1.validate_every = 1_000
    return config
