"""Second stage on MusicInstruct and MusicQA together.

    python -m musilingo_jax.train --config=configs/finetune_mix.py

Purpose: one model for both kinds of questions.

Data: both corpora, built as described in `configs/finetune_music_instruct.py`
(`music_instruct/all`) and `configs/finetune_music_qa.py`. As in the original, each is
drawn in proportion to its number of questions. `--inspect` counts yours:

    python -m musilingo_jax.corpora.build music_instruct/all --source=DIR --audio=DIR --inspect

Other shares are flags, such as `--config.corpus.mixture.music_instruct.weight=1
--config.corpus.mixture.music_qa.weight=1`.

Starts from the adapter of `runs/pretrain_lp_musiccaps_msd`; another one is a flag, such
as `--config.model.adapter=runs/pretrain_musiccaps`.

Published: learning rate 3e-5 → 1e-5, micro-batches of 2, of which 16 make an update, 7
epochs of 5,000 micro-batches, and a warm-up of 5,000. So steps = 7 × 5,000 ÷ 16 = 2,187
after a warm-up of 312, and 70,000 questions are drawn: about seven in ten, once each.

Differences: those in `docs/differences.md`; and the corpora take turns by weight, where
the original shuffles them as one.

Expected: memory and larger micro-batches as in `configs/finetune_music_instruct.py`.
Time was not measured at this size.
"""  # noqa: E501

from ml_collections import ConfigDict

from musilingo_jax.training import original


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is not used."""
    del arg
    config = original.experiment("runs/finetune_mix")
    config.model.adapter = "runs/pretrain_lp_musiccaps_msd"
    config.corpus.mixture = ConfigDict(
        {
            # Of 60,493 questions, as many as MusicCaps has clips to learn from.
            "music_instruct": {
                "path": "corpora/music_instruct/all",
                "weight": 60_493 * 2_663 / 5_521,
            },
            "music_qa": {"path": "corpora/music_qa", "weight": 70_011.0},
        }
    )

    config.stages = ("stage2",)
    stage2 = config.stage2 = original.second_stage()
    # The published 2 × 16 examples of an update, in rows that are padded less.
    stage2.batch_size = 8
    stage2.accumulate = 4
    stage2.steps = 7 * 5_000 // 16
    stage2.warmup_steps = 5_000 // 16
    return config
