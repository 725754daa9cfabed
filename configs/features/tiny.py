"""The embedded encoder on the embedded songs: a cache job that takes seconds.

    python -m musilingo_jax.cache --config=configs/features/tiny.py

Purpose: to try the job, its flags and its output on any machine. Another corpus, such
as a folder of songs, may be named after the colon:

    python -m musilingo_jax.cache --config=configs/features/tiny.py:path/to/songs
    python -m musilingo_jax.cache inspect runs/features/tiny
    python -m musilingo_jax.cache export runs/features/tiny --out=embeddings.parquet

Data: the embedded corpus, 96 clips of ten seconds. Expected: seconds on two cores.
Shards are small here, so that tasks have several to share. The settings are those of
`configs/tiny.py`, which trains on this cache with
`--config.features.cache=runs/features/tiny`.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The settings; `arg` is the corpus, the embedded one if empty."""
    config = ConfigDict()

    config.model = ConfigDict()
    config.model.encoder = "musilingo-tiny"
    config.model.dtype = "float32"

    config.corpus = ConfigDict()
    config.corpus.path = arg or "musilingo-tiny-corpus"

    config.features = ConfigDict()
    config.features.window_frames = 108  # 4.33 s at 25 frames a second.
    config.features.chunk_windows = 3
    config.features.batch_size = 8
    config.features.reduction = "pooled"
    config.features.level = 0.1  # Of the clips that the encoder learnt from.
    config.features.shard_clips = 16
    config.features.cache = "runs/features/tiny"
    config.features.allow_missing = False

    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
