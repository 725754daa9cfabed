"""A closed-form start for the adapter: ridge regression onto sums of codes.

The embedded language model reads sums of the codes of what is known (`hints.py`). The
best linear map from pooled features to such sums is a regression, solved in a
second; gradient descent through the language model takes hundreds of updates to find
the same directions. Training continues from it as from any other adapter.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float
from ml_collections import ConfigDict

from musilingo_jax.audio.cache import feature_cache
from musilingo_jax.corpora import mixture
from musilingo_jax.corpora.facts import FACTS
from musilingo_jax.corpora.records import Record
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.parts import Parts
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.pretrained.trained_with import TrainedWith
from musilingo_jax.recipes.hints import codes
from musilingo_jax.runtime.sharding import make_mesh


def write_start(experiment: ConfigDict, *, shrinkage: float) -> None:
    """Fits a start to an experiment's training songs, and saves it.

    Args:
      experiment: as for training; the start goes where `model.adapter` names it.
      shrinkage: as in `ridge`.

    Raises:
      UserError: the songs, the encoder or the language model cannot be read.
    """
    mesh = make_mesh(**experiment.mesh)
    corpus = experiment.corpus
    records = mixture.split(corpus, corpus.train_split, answered=True)
    features = feature_cache.prepare(experiment, records, mesh)
    language_model = sources.find(experiment.model.language_model, "language_model")
    width = LlamaConfig.from_dict(dict(language_model.config)).width
    table = codes(width)
    start = ridge(*regression(labels_of(records), features.features, table), shrinkage)
    weights.save_adapter(
        Parts(bridge=start),
        Path(experiment.model.adapter),
        dtype=np.float32,
        window_frames=experiment.features.window_frames,
        trained_with=TrainedWith.of_sources(
            experiment.model.encoder, experiment.model.language_model
        ).stored(),
    )


def labels_of(records: Iterable[Record]) -> dict[str, dict[str, str]]:
    """The value of each fact of each clip that some question is about."""
    labels: dict[str, dict[str, str]] = {}
    for record in records:
        if record.attribute is not None and record.value is not None:
            labels.setdefault(record.clip, {})[record.attribute] = record.value
    return labels


def goal(
    known: Mapping[str, str], table: Float[np.ndarray, "facts values width"]
) -> Float[np.ndarray, " width"]:
    """What the language model should find in the slot: the sum of the codes.

    Args:
      known: fact → value, for the facts that are known.
      table: from `codes`.
    """
    total = np.zeros(table.shape[2], np.float32)
    for row, (name, values) in enumerate(FACTS.items()):
        if name in known:
            total += table[row, values.index(known[name])]
    return total


def regression(
    labels: Mapping[str, Mapping[str, str]],
    features_of: Callable[[str], Float[np.ndarray, "windows width"]],
    table: Float[np.ndarray, "facts values width_out"],
) -> tuple[Float[np.ndarray, "rows width"], Float[np.ndarray, "rows width_out"]]:
    """What the regression maps to what: a row for each window of each clip.

    Args:
      labels: from `labels_of`.
      features_of: the pooled features of a clip.
      table: from `codes`.

    Returns:
      The windows' features; the goals of their clips, the same for all windows of one.
    """
    features, goals = [], []
    for clip, known in labels.items():
        windows = features_of(clip)
        features.append(windows)
        goals.append(np.tile(goal(known, table), (len(windows), 1)))
    return np.concatenate(features), np.concatenate(goals)


def ridge(
    features: Float[np.ndarray, "rows width"],
    goals: Float[np.ndarray, "rows width_out"],
    shrinkage: float,
) -> LinearBridge:
    """The adapter that minimises ‖features · kernel + bias − goals‖² + penalty.

    The penalty is `shrinkage · rows · ‖S^½ · kernel‖²`, with S the diagonal of the
    features' covariance: ridge regression of standardised features (Hoerl & Kennard
    1970).

    Args:
      features: pooled features, one row a window.
      goals: what the language model should find in the slot for that window.
      shrinkage: strength of the penalty relative to the variance of a feature.
    """
    mean, spread = features.mean(0), features.std(0) + 1e-6
    x = ((features - mean) / spread).astype(np.float64)
    y = (goals - goals.mean(0)).astype(np.float64)
    gram = x.T @ x + shrinkage * len(x) * np.eye(x.shape[1])
    kernel = np.linalg.solve(gram, x.T @ y) / spread[:, None]
    bias = goals.mean(0) - mean @ kernel
    return linear_adapter(kernel, bias)


def linear_adapter(
    kernel: Float[np.ndarray, "width width_out"], bias: Float[np.ndarray, " width_out"]
) -> LinearBridge:
    """The adapter with these numbers, in float32."""
    made = {"kernel": kernel, "bias": bias}
    abstract = jax.eval_shape(lambda: LinearBridge(*kernel.shape, rngs=nnx.Rngs(0)))
    return jax.tree.map_with_path(
        lambda path, _: next(
            jnp.asarray(array, jnp.float32)
            for name, array in made.items()
            if name in jax.tree_util.keystr(path)
        ),
        abstract,
    )
