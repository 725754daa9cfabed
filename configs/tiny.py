"""The embedded model on the embedded songs: the whole method in a minute or two.

    python -m musilingo_jax.train --config=configs/tiny.py

Purpose: see every part work, on any machine, with nothing to download. Encoder and
language model are the embedded ones, frozen; the adapter starts from random numbers and
learns, first from captions alone, then from questions and answers, as MusiLingo's does.

Data: the embedded corpus of rendered songs with known answers.

Expected: half a minute on two cores. An adapter from random numbers and 64 clips names
the style of three in four held-out clips, the drums of all, the key (of 24) of every
second; `evaluate` says it with intervals and controls. The shipped adapter learnt from
3,000 clips and knows more; `--config.model.adapter=musilingo-tiny` starts from that.
"""

from ml_collections import ConfigDict

from musilingo_jax.training import embedded


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is not used."""
    del arg
    config = embedded.experiment("runs/tiny")
    config.model.adapter = "random"
    config.corpus.path = "musilingo-tiny-corpus"

    config.stages = ("stage1", "stage2")
    stage1 = config.stage1 = embedded.first_stage()
    stage1.steps = 150
    stage1.warmup_steps = 15
    stage1.learning_rate = 3e-3
    stage1.final_learning_rate = 1e-3

    stage2 = config.stage2 = embedded.second_stage()
    stage2.steps = 250
    stage2.warmup_steps = 25
    stage2.learning_rate = 1e-3
    stage2.final_learning_rate = 3e-4

    # Fewer rows save padding, but take longer to compile than that saves.
    stage1.batch_size = stage1.rows = stage2.batch_size = stage2.rows = 16
    return config
