"""MERT-v1-330M on a corpus, overnight: the features that released adapters read.

    python -m musilingo_jax.cache --config=configs/features/mert_330m.py:CORPUS
    python -m musilingo_jax.cache --config=… --task=$SLURM_ARRAY_TASK_ID --tasks=16
    python -m musilingo_jax.cache --config=… --distributed    # on all hosts of a pod

Purpose: to encode once what every later experiment reads. Windows are those of the
released models, 325 frames (4.33 s); vectors are means over all 25 hidden states. Other
reductions, for other tools, need folders of their own:

    --config.features.reduction=layers --config.features.cache=runs/features/mert_layers
    --config.features.reduction=frames --config.features.cache=runs/features/mert_frames

Data: CORPUS is anything that `corpus.path` may be. Several corpora may share a folder,
one job after the other.

Expected: 12 KB for a clip of ten seconds (3 × 1024 numbers); with "layers" 100 KB, with
"frames" 3 MB. A task that is killed loses at most one shard of 1,024 clips. Use one
kind of machine for a job: the last bits of features differ between kinds. Weights are
in bfloat16, or in float32 if the machine that begins the job has a processor without
bfloat16 units; all tasks, and the runs that use the cache, then use the same.
"""

from dataclasses import asdict

from ml_collections import ConfigDict

from musilingo_jax.answering import released
from musilingo_jax.pretrained import number_type


def get_config(arg: str = "") -> ConfigDict:
    """The settings; `arg` is the corpus, `songs.jsonl` if empty."""
    config = ConfigDict()

    config.model = ConfigDict()
    config.model.encoder = "m-a-p/MERT-v1-330M"
    config.model.dtype = number_type.AUTO

    config.corpus = ConfigDict()
    config.corpus.path = arg or "songs.jsonl"

    config.features = ConfigDict(asdict(released.FEATURES))
    config.features.batch_size = 16
    config.features.shard_clips = 1024
    config.features.cache = "runs/features/mert_330m"
    config.features.allow_missing = False

    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
