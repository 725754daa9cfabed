"""MU-LLaMA in PyTorch, written from its paper and its formulas, for comparison.

Nothing of it is shared with the package. Arrays come in by name, in the layout of
PyTorch: a linear map's weight is [fan_out, fan_in], and heads are rotated in halves.
"""

from collections.abc import Callable, Mapping

import torch
from torch.nn.functional import linear, normalize, silu

Weights = Mapping[str, torch.Tensor]


def rms_norm(x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * scale


def hear(weights: Weights, states: torch.Tensor, blocks: int) -> torch.Tensor:
    """[batch, states, width_in] → one vector per clip [batch, width]."""
    mixed = torch.einsum("bsw,s->bw", states, weights["mix.weight"][0])
    mixed = normalize(mixed + weights["mix.bias"], dim=-1, eps=1e-12)
    x = linear(
        mixed / (1 + 1e-6), weights["projection.weight"], weights["projection.bias"]
    )
    for i in range(blocks):
        n = rms_norm(x, weights[f"blocks.{i}.norm.weight"], 1e-6)
        inner = silu(linear(n, weights[f"blocks.{i}.gate_proj.weight"]))
        inner = inner * linear(n, weights[f"blocks.{i}.up_proj.weight"])
        x = x + linear(inner, weights[f"blocks.{i}.down_proj.weight"])
    return x


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Turns the halves of each head [batch, heads, time, head_dim] by position."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[2])[:, None] * 10_000.0 ** (-torch.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat(
        [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=-1
    )


def rotate_neighbours(x: torch.Tensor) -> torch.Tensor:
    """Turns neighbours in each head by position, as Meta's code does."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[2])[:, None] * 10_000.0 ** (-torch.arange(half) / half)
    a, b = x[..., 0::2], x[..., 1::2]
    turned = a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()
    return torch.stack(turned, dim=-1).flatten(-2)


def tuned(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """A linear map with its LoRA, whose product counts once, and its bias."""
    y = linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))
    if f"{name}.a" in weights:
        y = y + linear(linear(x, weights[f"{name}.a"]), weights[f"{name}.b"])
    return y


def logits(
    weights: Weights,
    tokens: torch.Tensor,
    audio: torch.Tensor,
    *,
    depth: int,
    heads: int,
    query_layers: int,
    rotate: Callable[[torch.Tensor], torch.Tensor] = rotate,
) -> torch.Tensor:
    """Scores of the next token [batch, time, vocab].

    Args:
      weights: of the language model, the gates and the queries.
      tokens: [batch, time], all of them text.
      audio: [batch, width], of `hear`.
      depth, heads, query_layers: the sizes that no weight says.
      rotate: how pairs in a head turn.
    """
    batch, time = tokens.shape
    x = weights["embedding"][tokens]
    width = x.shape[-1]
    mask = torch.full((time, time), float("-inf")).triu(1)

    def split(y: torch.Tensor) -> torch.Tensor:
        return y.view(batch, -1, heads, width // heads).transpose(1, 2)

    for i in range(depth):
        layer = f"layers.{i}"
        n = rms_norm(x, weights[f"{layer}.attention_norm"], 1e-5)
        query = rotate(split(tuned(weights, f"{layer}.query", n)))
        key = rotate(split(tuned(weights, f"{layer}.key", n)))
        value = split(tuned(weights, f"{layer}.value", n))
        scores = query @ key.transpose(2, 3) / (width // heads) ** 0.5 + mask
        mixed = scores.softmax(-1) @ value
        if i >= depth - query_layers:
            heard = audio + weights["queries"][i - depth + query_layers]
            heard = split(linear(heard, weights[f"{layer}.value.weight"])[:, None])
            gate = weights["gates"][i].tanh().view(1, heads, 1, 1)
            mixed = mixed + gate * heard
        mixed = mixed.transpose(1, 2).reshape(batch, time, width)
        x = x + tuned(weights, f"{layer}.out", mixed)
        n = rms_norm(x, weights[f"{layer}.mlp_norm"], 1e-5)
        inner = silu(tuned(weights, f"{layer}.gate", n))
        inner = inner * tuned(weights, f"{layer}.up", n)
        x = x + tuned(weights, f"{layer}.down", inner)
    return linear(rms_norm(x, weights["norm"], 1e-5), weights["head"])
