"""What all experiments with the embedded model have in common.

`configs/tiny.py` and `configs/own_songs.py` start from these sections, and so does the
recipe by which the embedded model is made, `configs/tiny_from_scratch.py`. The encoder
makes 25 frames a second, a third of what the published one makes, so a window of 108
frames lasts as long as the published 325: 4.33 s.
"""

from dataclasses import replace

from ml_collections import ConfigDict

from musilingo_jax.answering.config import GREEDY
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.training import sections

MODEL = "musilingo-tiny"
# The level is that of the rendered clips which the encoder learnt from.
FEATURES = FeatureConfig(
    window_frames=108, chunk_windows=3, batch_size=8, reduction="pooled", level=0.1
)
# The most likely token. A temperature above 0 draws from the likelier half.
GENERATE = replace(GREEDY, max_new_tokens=160, top_p=0.5, batch_size=16)


def experiment(run: str) -> ConfigDict:
    """A config without the corpus and the stages.

    Args:
      run: folder of the run.
    """
    config = sections.experiment(
        run, dtype="float32", features=FEATURES, generate=GENERATE
    )
    config.model.pretrained = MODEL
    return config


def first_stage() -> ConfigDict:
    """Captions, with no text around the audio."""
    return _small(sections.first_stage())


def second_stage() -> ConfigDict:
    """Questions and answers, in a conversation."""
    stage = _small(sections.second_stage())
    stage.max_tokens = 256
    return stage


def _small(stage: ConfigDict) -> ConfigDict:
    """What short trainings of a small model have in common."""
    stage.max_windows = 8
    stage.remat = "everything"
    stage.query_block = 512
    stage.key_block = 512
    stage.checkpoint_every = 50
    stage.validation_examples = 256
    stage.log_every = 5
    return stage
