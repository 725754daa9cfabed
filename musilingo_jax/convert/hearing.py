"""How loudly the layers of a language model hear with MU-LLaMA's bridge.

    layer  |tanh(gate)|  largest   ‖query‖  ‖added‖
       12        0.0312   0.0540     63.81    0.912
       13        …

A gate is one number per head; what a layer adds is tanh(gate) · value(audio + query),
with `audio` of the song and the rest of the file. ‖added‖ is that of a song whose
vector is 0: tanh(gate) · value(query), which every song gets. With gates near 0 a model
that is read wrongly answers like one that is read rightly, so these are what to look
at.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from musilingo_jax.models import llama as llamas
from musilingo_jax.models.bridges.gated_values import GatedValues
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.pretrained.finite_tensors import finite
from musilingo_jax.pretrained.sources import Part
from musilingo_jax.pretrained.weights import blueprint


@dataclass(frozen=True)
class LayerHearing:
    """What one layer adds.

    Attributes:
      layer: its number, from 0.
      gate: mean of |tanh(gate)| over the heads.
      largest_gate: the largest of these.
      query: length of the layer's query.
      added: length of what the layer adds for a song whose vector is 0; None if the
        language model is not at hand.
    """

    layer: int
    gate: float
    largest_gate: float
    query: float
    added: float | None


def hearing(adapter: Part, language_model: Part | None) -> list[LayerHearing]:
    """The layers that hear, in their order; none if the bridge adds to no layer.

    Gates and queries are read, and of the language model the value maps of these
    layers, one at a time.

    Args:
      adapter: whose bridge it is.
      language_model: whose value maps are used; None if it is not known.

    Raises:
      UserError: a tensor is missing or cannot be read.
    """
    bridge = blueprint(adapter).module.bridge
    if not isinstance(bridge, GatedValues):
        return []
    content = finite(adapter.tensors(), str(adapter.folder))
    gates, queries = (
        np.asarray(content[name][...], np.float32) for name in ("gates", "queries")
    )
    gates = np.tanh(gates)
    deaf = len(gates) - len(queries)
    found = []
    for layer, query in enumerate(queries, start=deaf):
        loudness = np.abs(gates[layer])
        found.append(
            LayerHearing(
                layer=layer,
                gate=float(loudness.mean()),
                largest_gate=float(loudness.max()),
                query=float(np.linalg.norm(query)),
                added=None
                if language_model is None
                else _added(language_model, layer, query, gates[layer]),
            )
        )
    return found


def table(layers: Sequence[LayerHearing]) -> list[str]:
    """Lines for people, with a heading."""
    lines = [
        "What layers add: mean and largest |tanh(gate)| over heads, length of the "
        "query, length of what is added for a song whose vector is 0",
        f"{'layer':>5}  {'|tanh(gate)|':>12}  {'largest':>8}  {'query':>8}  "
        f"{'added':>8}",
    ]
    for one in layers:
        added = "?" if one.added is None else f"{one.added:.4g}"
        lines.append(
            f"{one.layer:>5}  {one.gate:>12.4g}  {one.largest_gate:>8.4g}  "
            f"{one.query:>8.4g}  {added:>8}"
        )
    return lines


def _added(part: Part, layer: int, query: np.ndarray, gates: np.ndarray) -> float:
    """The length of gate · value(query) over all heads of a layer."""
    config: LlamaConfig = blueprint(part).module.config
    name = str(llamas.NAMES["layers.value.kernel"]).format(layer)
    kernel = finite(part.tensors(), str(part.folder))[name][...].astype(np.float32)
    values = (kernel @ query).reshape(config.key_heads, config.head_dim)
    heads = np.repeat(values, config.heads // config.key_heads, axis=0)
    return float(np.linalg.norm(gates[:, None] * heads))
