"""Second stage on MusicCaps: captions, requested in a conversation.

    python -m musilingo_jax.train --config=configs/finetune_musiccaps.py

Purpose: a captioner. Unlike in the first stage the model is asked, always in the words
"Please give a caption to the music.", and its answer may have 160 tokens. In a chat
with it, what you ask is appended to these words.

Data: 2,663 clips of ten seconds to train on, and 2,858 to test. `--layout` says where
to get them:

    python -m musilingo_jax.corpora.build musiccaps --layout
    python -m musilingo_jax.corpora.build musiccaps --source=DIR --audio=DIR --out=corpora

Starts from the adapter of `runs/pretrain_lp_musiccaps_msd`; another one is a flag, such
as `--config.model.adapter=runs/pretrain_musiccaps`.

Published: learning rate 3e-5 → 1e-5, micro-batches of 2, of which 8 make an update, 6
epochs of 1,000 micro-batches, and a warm-up of 1,000. So steps = 6 × 1,000 ÷ 8 = 750
after a warm-up of 125, and 12,000 clips are drawn: each four or five times.

Differences: those in `docs/differences.md`.

Expected: memory and larger micro-batches as in `configs/finetune_music_instruct.py`.
Time was not measured at this size. Captions are scored by

    python -m musilingo_jax.evaluate --config=configs/finetune_musiccaps.py
"""  # noqa: E501

from ml_collections import ConfigDict

from musilingo_jax.training import original


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is not used."""
    del arg
    config = original.experiment("runs/finetune_musiccaps")
    config.model.adapter = "runs/pretrain_lp_musiccaps_msd"
    config.corpus.path = "corpora/musiccaps"

    config.stages = ("stage2",)
    stage2 = config.stage2 = original.second_stage()
    # Captions have no question, so that nothing takes the place of the braces.
    stage2.prompt.instruction = (
        "<Audio><AudioHere></Audio> Please give a caption to the music.{}"
    )
    stage2.questions = "captions"
    # The published 2 × 8 examples of an update, in rows that are padded less.
    stage2.batch_size = 8
    stage2.accumulate = 2
    stage2.steps = 6 * 1_000 // 8
    stage2.warmup_steps = 1_000 // 8
    return config
