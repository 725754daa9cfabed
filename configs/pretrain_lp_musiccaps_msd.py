"""First stage on LP-MusicCaps-MSD: the adapter learns to caption half a million songs.

    python -m musilingo_jax.train --config=configs/pretrain_lp_musiccaps_msd.py

Purpose: what the published adapters begin with. No text stands around the audio: the
language model only continues it with a caption of at most 32 tokens and a newline.

Data: captions (`caption_writing`) of 444,865 songs to learn from and 34,481 to validate
with, and the songs' previews of thirty seconds. `--layout` tells where to get them:

    python -m musilingo_jax.corpora.build lp_musiccaps_msd --layout
    python -m musilingo_jax.corpora.build lp_musiccaps_msd --source=DIR --audio=DIR --out=corpora
    python -m musilingo_jax.cache --config=configs/features/mert_330m.py:corpora/lp_musiccaps_msd

Encode first, on many machines if there are any (`--task`, `--tasks`): it is by far the
longest part of the work, 513,977 songs, and leaves about 15 GB of features (28 KB a
song). Training would do it too, on the machine that it is started on.

Published: learning rate 1e-4 → 8e-5, 4 epochs of 5,000 micro-batches of 8, of which
each is an update, and a warm-up of 5,000. So steps = 20,000, and 160,000 songs are
heard: about a third of them, once.

Otherwise than there: what `docs/differences.md` lists; and every 1,000 updates
512 songs of the split "valid" are looked at, of which the original takes no notice.

Expected: 13.5 GB of memory for the weights in bfloat16, over all devices together
(`--config.model.quantization=int8`: half), and less than 1 GB for the rest, as there are
no more than 320 tokens in a micro-batch. Time was not measured at this size:

    python -m musilingo_jax.plan --config=configs/pretrain_lp_musiccaps_msd.py --topology=v5e:2x4

Vicuna 7B v0 is taken from a released MusiLingo, which holds it merged; one that you
merged yourself is `--config.model.language_model=FOLDER`. The second stage
(`configs/finetune_*.py`) begins with `runs/pretrain_lp_musiccaps_msd`.
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
