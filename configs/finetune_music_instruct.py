"""Second stage on MusicInstruct: questions and answers about clips of ten seconds.

    python -m musilingo_jax.train --config=configs/finetune_music_instruct.py:long

Purpose: the published MusiLingo models. The word after the colon selects the questions:
`long` (impressions, in sentences), `short` (facts, in a few words) or `all`, the
default. Each has its own run folder, such as `runs/finetune_music_instruct_long`.

Data: 32,953 long and 27,540 short questions that GPT-4 wrote about MusicCaps, with the
sound of MusicCaps; those about AudioSet's evaluation set are the split "test":

    python -m musilingo_jax.corpora.build music_instruct/long --layout
    python -m musilingo_jax.corpora.build music_instruct/long --source=DIR --audio=DIR --out=corpora

Starts from the adapter of `runs/pretrain_lp_musiccaps_msd`, or from another one:

    --config.model.adapter=runs/pretrain_musiccaps
    --config.model.adapter=m-a-p/MusiLingo-long-v1      # trains the released one further

Published: learning rate 3e-5 → 1e-5, micro-batches of 2, of which 16 make an update, 6
epochs of 5,000 (all), 3,000 (long) or 2,500 (short) micro-batches, and a warm-up of one
such epoch. So steps = 6 × 5,000 ÷ 16 = 1,875, or 1,125, or 937, after a warm-up of 312,
187 or 156.

Differences: those in `docs/differences.md`.

Expected: 13.5 GB of memory for the weights in bfloat16, over all devices together
(`--config.model.quantization=int8`: half), and 1 to 4 GB for the rest, depending on the
length of the answers. The 32 examples of an update are 4 rows of 8 concatenated
examples, computed one row at a time. In pairs, as published, up to a fifth of a row
would be padding (counted on artificial lengths; the progress bar reports yours). With
more memory the same update, of the same examples, is faster in one piece, or split over
8 devices:

    --config.stage2.batch_size=32 --config.stage2.accumulate=1 --config.stage2.rows=8
    --config.mesh.fsdp=8 --config.mesh.tensor=1         # in addition

Time was not measured at this size; `musilingo_jax.plan` says what fits where:

    python -m musilingo_jax.plan --config=configs/finetune_music_instruct.py --topology=v5e:2x4
"""  # noqa: E501

from ml_collections import ConfigDict

from musilingo_jax.runtime.errors import UsageError
from musilingo_jax.training import original

MICRO_BATCHES = {"all": 5_000, "long": 3_000, "short": 2_500}


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is "all", "long" or "short", "all" if empty."""
    kind = arg or "all"
    if kind not in MICRO_BATCHES:
        raise UsageError(
            f"configs/finetune_music_instruct.py:{kind}: choose one of "
            f"{', '.join(MICRO_BATCHES)}"
        )
    config = original.experiment(f"runs/finetune_music_instruct_{kind}")
    config.model.adapter = "runs/pretrain_lp_musiccaps_msd"
    config.corpus.path = f"corpora/music_instruct/{kind}"

    config.stages = ("stage2",)
    stage2 = config.stage2 = original.second_stage()
    # The published 2 × 16 examples of an update, in rows that are padded less.
    stage2.batch_size = 8
    stage2.accumulate = 4
    stage2.steps = 6 * MICRO_BATCHES[kind] // 16
    stage2.warmup_steps = MICRO_BATCHES[kind] // 16
    return config
