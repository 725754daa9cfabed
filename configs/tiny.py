"""The embedded model on the embedded songs: the whole method in about a minute.

    python -m musilingo_jax.train --config=configs/tiny.py
    python -m musilingo_jax.evaluate --config=configs/tiny.py

Purpose: to see every part work, on any machine, without a download. Encoder and
language model are the embedded ones, frozen. The adapter starts from random numbers and
trains as MusiLingo's does: first on captions alone, then on questions and answers.

Data: the embedded corpus, 64 clips of rendered music to train on and 32 to test, with
known answers.

Expected: half a minute on two cores. An adapter that starts from random numbers names
the style and the key (one of 24) of every second test clip, and the drums of nearly
all; `evaluate` reports this with intervals and controls. The shipped adapter was
trained on 2,000 clips and on recordings, and is better:
`--config.model.adapter=musilingo-tiny` starts from it.
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
