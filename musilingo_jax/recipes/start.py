"""A closed-form start for the adapter: ridge regression onto the words' embeddings.

The embedded language model reads sums of embeddings of attribute words (see
`language.py`). The best linear map from pooled features to such sums is a regression,
solved in a second, where gradient steps through the language model need hundreds to
find the same directions. Training then goes on from it as from any other adapter.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from musilingo_jax.models.adapter import Adapter


def ridge(
    features: Float[np.ndarray, "windows width"],
    goals: Float[np.ndarray, "windows width_out"],
    *,
    shrinkage: float,
) -> Adapter:
    """The adapter that minimises ‖features · kernel + bias − goals‖² + penalty.

    The penalty is `shrinkage · windows · ‖S^½ · kernel‖²`, with S the diagonal of the
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
) -> Adapter:
    """The adapter with these numbers, in float32."""
    made = {"kernel": kernel, "bias": bias}
    abstract = jax.eval_shape(lambda: Adapter(*kernel.shape, rngs=nnx.Rngs(0)))
    return jax.tree.map_with_path(
        lambda path, _: next(
            jnp.asarray(array, jnp.float32)
            for name, array in made.items()
            if name in jax.tree_util.keystr(path)
        ),
        abstract,
    )
