"""MERT-v1-330M on a corpus, over night: what the released adapters hear of it.

    python -m musilingo_jax.cache --config=configs/features/mert_330m.py:CORPUS
    python -m musilingo_jax.cache --config=… --task=$SLURM_ARRAY_TASK_ID --tasks=16
    python -m musilingo_jax.cache --config=… --distributed    # on all hosts of a pod

Purpose: encode once what every later experiment reads. Windows are the released
models', 325 frames (4.33 s), means over all 25 hidden states. Other adapters need
something else, each in a folder of its own:

    --config.features.reduction=layers --config.features.cache=runs/features/mert_layers
    --config.features.reduction=frames --config.features.cache=runs/features/mert_frames

Data: CORPUS is whatever `corpus.path` may be. Several corpora may share a
folder, one job after the other.

Expected: 12 KB for a clip of ten seconds (3 × 1024 numbers); with "layers" 100 KB, with
"frames" 3 MB. A killed task loses at most a shard of 1,024 clips. Use one kind of
machine for a job: the last bits differ between kinds.
"""

from dataclasses import asdict

from ml_collections import ConfigDict

from musilingo_jax.answering import released


def get_config(arg: str = "") -> ConfigDict:
    """The numbers; `arg` is the corpus, `songs.jsonl` if empty."""
    config = ConfigDict()

    config.model = ConfigDict()
    config.model.encoder = "m-a-p/MERT-v1-330M"
    config.model.dtype = released.DTYPE

    config.corpus = ConfigDict()
    config.corpus.path = arg or "songs.jsonl"

    config.features = ConfigDict(asdict(released.FEATURES))
    config.features.batch_size = 16
    config.features.shard_clips = 1024
    config.features.cache = "runs/features/mert_330m"
    config.features.allow_missing = False

    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
