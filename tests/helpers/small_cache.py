"""A tiny random encoder, short songs of noise, and caches that the job fills."""

import json

import jax
import numpy as np
import soundfile
from etils import epath
from flax import nnx

from musilingo_jax.audio import waveforms as audio
from musilingo_jax.audio.cache import cache_state
from musilingo_jax.audio.cache import fill as cache_job
from musilingo_jax.audio.cache.clips import Clip
from musilingo_jax.audio.cache.identity import FORMAT, Identity
from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.jobs import journal
from musilingo_jax.jobs.engine import THIS_PROCESS
from musilingo_jax.jobs.share import Share
from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.runtime.sharding import make_mesh, shardings

RATE = 24_000
FEATURES = FeatureConfig(
    window_frames=10, chunk_windows=2, batch_size=2, reduction="pooled", level=0.0
)
IDENTITY = Identity(
    encoder="tiny",
    sample_rate=RATE,
    window_frames=10,
    chunk_windows=2,
    reduction="pooled",
    dtype="float32",
    format=FORMAT,
    level=0.0,
)
ENCODER = {
    "model_type": "mert_model",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": [16, 24],
    "conv_kernel": [20, 40],
    "conv_stride": [16, 30],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "feat_extract_norm": "group",
    "do_stable_layer_norm": True,
    "layer_norm_eps": 1e-5,
}


def tiny_mert(mesh):
    """The encoder, placed as `load_encoder` places it, so that programs are shared.

    Its weights are NumPy's, because XLA would compile a program for each shape.
    """
    rng = np.random.default_rng(0)

    def weight(path, leaf):
        name = jax.tree_util.keystr(path)
        if "kernel" in name:
            deviation = np.prod(leaf.shape[:-1]) ** -0.5
            return rng.normal(0, deviation, leaf.shape).astype(leaf.dtype)
        return np.full(leaf.shape, "scale" in name, leaf.dtype)

    config = MertConfig.from_dict(ENCODER)
    shapes = jax.eval_shape(lambda: Mert(config, rngs=nnx.Rngs(0)))
    mert = jax.tree_util.tree_map_with_path(weight, shapes)
    return jax.device_put(mert, shardings(mert, mesh))


def write_songs(folder, count):
    """Noise of 0.5 to 1.4 s, as clips and as a corpus."""
    folder.mkdir(exist_ok=True)
    lines = []
    for n in range(count):
        noise = np.random.default_rng(n).normal(0, 0.1, RATE // 2 + 2_400 * (n % 10))
        soundfile.write(folder / f"{n:02}.wav", noise, RATE)
        lines.append(json.dumps({"audio": f"{n:02}.wav", "answer": "Noise."}) + "\n")
    (folder / "songs.jsonl").write_text("".join(lines))
    return [Clip(path.name, path) for path in sorted(folder.glob("*.wav"))]


def contents(found):
    return {clip: found.features(clip).tobytes() for clip in found.ids}


ALL = Share(0, 1)


def fill(
    clips,
    mert,
    folder,
    *,
    shard_clips=3,
    share=ALL,
    retry=False,
    numbers=FEATURES,
    identity=IDENTITY,
    engine=THIS_PROCESS,
):
    """The job, as the program starts it, and the cache if it is complete."""
    mesh = make_mesh(data=1, fsdp=1, tensor=1)
    folder = epath.Path(folder)
    cache_job.run(
        clips,
        lambda: (mert, mesh),
        numbers,
        folder,
        identity,
        share,
        engine,
        shard_clips=shard_clips,
        retry=retry,
    )
    if cache_state.read(folder, identity).unfinished:
        return None
    return FeatureCache.open(folder, identity)


def record_reads(monkeypatch):
    """A list that grows by the name of each file that is decoded from now on."""
    read, names = audio.read, []
    monkeypatch.setattr(
        audio,
        "read",
        lambda path, **rest: names.append(path.name) or read(path, **rest),
    )
    return names


def files(folder):
    """All that a finished job leaves, but who did it when."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and not path.name.startswith("lock")
        and path.parent.name != journal.FOLDER
    }
