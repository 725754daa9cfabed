"""Second stage on MusicQA: nine questions and answers about each clip.

    python -m musilingo_jax.train --config=configs/finetune_music_qa.py

Purpose: the published MusiLingo-musicqa, to be compared with MU-LLaMA on its own data.

Data: 70,011 questions about 7,779 clips of MagnaTagATune to train on, and 5,040 about
560 clips of MTG-Jamendo to test. Annotations and sound are on the Hugging Face hub:

    python -m musilingo_jax.corpora.build music_qa --layout
    python -m musilingo_jax.corpora.build music_qa --source=DIR --audio=DIR --out=corpora
    python -m musilingo_jax.cache --config=configs/features/mert_330m.py:corpora/music_qa

The last command is optional: training makes missing features (28 KB for thirty
seconds). A third split, "pretrain", is MusicCaps; it is not used here.

Starts from the adapter of `runs/pretrain_lp_musiccaps_msd`; another one is a flag, such
as `--config.model.adapter=runs/pretrain_musiccaps`.

Published: learning rate 3e-5 → 1e-5, micro-batches of 2, of which 16 make an update, 6
epochs of 5,000 micro-batches, and a warm-up of 5,000. So steps = 6 × 5,000 ÷ 16 = 1,875
after a warm-up of 312, and 60,000 questions are drawn: most of them, once.

Differences: those in `docs/differences.md`.

Expected: memory and larger micro-batches as in `configs/finetune_music_instruct.py`.
Time was not measured at this size. MU-LLaMA's published scores are BLEU .306, METEOR
.385 and ROUGE-L .466; `evaluate` prints them beside yours, and the documentation says
what is known about how comparable they are:

    python -m musilingo_jax.evaluate --config=configs/finetune_music_qa.py
"""  # noqa: E501

from ml_collections import ConfigDict

from musilingo_jax.training import original


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is not used."""
    del arg
    config = original.experiment("runs/finetune_music_qa")
    config.model.adapter = "runs/pretrain_lp_musiccaps_msd"
    config.corpus.path = "corpora/music_qa"

    config.stages = ("stage2",)
    stage2 = config.stage2 = original.second_stage()
    # The published 2 × 16 examples of an update, in rows that are padded less.
    stage2.batch_size = 8
    stage2.accumulate = 4
    stage2.steps = 6 * 5_000 // 16
    stage2.warmup_steps = 5_000 // 16
    return config
