"""The parts of a model that hears and answers, of which some learn and some do not."""

from dataclasses import dataclass, fields, replace
from typing import Any, cast

import jax
from flax import nnx
from jaxtyping import Array, Float

from musilingo_jax.models.bridges import Bridge
from musilingo_jax.models.heard import Heard
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.lora import UNTUNED, Tuning


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Parts:
    """Some of the parts of a model; the others are None.

    What learns and what is frozen are two of these. Which of them a part stands in
    decides whether it learns:

                            bridge    llama    tuning
        MusiLingo learns      x
        LoRA as well          x                   x
        MU-LLaMA, stage 2                         x
        LLark                 x      layers

    Of a language model whose layers learn, the layers and the last norm stand in one,
    and both ends, the word embeddings and the head, in the other: `divided`.

    Attributes:
      bridge: cached features → what the language model hears.
      llama: the language model, or a part of it as of `divided`.
      tuning: what is trained beside its weights; None also if nothing is.
    """

    bridge: Bridge | None = None
    llama: Llama | None = None
    tuning: Tuning | None = None

    def only(self, *names: str) -> "Parts":
        """The parts with these names, without the others."""
        return Parts(**{name: getattr(self, name) for name in names})

    def without(self, *names: str) -> "Parts":
        """The parts that do not have these names."""
        return replace(self, **dict.fromkeys(names))

    def replaced_by(self, other: "Parts") -> "Parts":
        """These parts, but those that the other has from there."""
        others = {field.name: getattr(other, field.name) for field in fields(other)}
        return replace(self, **{k: v for k, v in others.items() if v is not None})

    def and_those_of(self, other: "Parts") -> "Whole":
        """The whole model, each part from the one of the two that has it.

        Raises:
          ValueError: a part is in both, or the bridge or the language model in neither.
        """
        found = {}
        for name in (field.name for field in fields(self)):
            here, there = getattr(self, name), getattr(other, name)
            found[name] = there if here is None else here
            if here is not None and there is not None:
                if name != "llama":
                    raise ValueError(f"the {name} both learns and is frozen")
                found[name] = joined(here, there)
        if found["bridge"] is None or found["llama"] is None:
            raise ValueError("a model needs a bridge and a language model")
        tuning = cast(Tuning | None, found.pop("tuning"))
        return Whole(**found, tuning=UNTUNED if tuning is None else tuning)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Whole:
    """All parts of a model.

    Attributes:
      bridge: cached features → what the language model hears.
      llama: the language model.
      tuning: what is trained beside its weights.
    """

    bridge: Bridge
    llama: Llama
    tuning: Tuning

    def hear(self, features: Float[Array, "batch windows width"]) -> Heard:
        """What the language model hears of the clips of each row."""
        return self.bridge(features, self.llama)


def divided(llama: Llama) -> tuple[Llama, Llama]:
    """The layers and the last norm of a language model, and both of its ends.

        layers, norm           learn in full tuning
        embedding, head        stay as they are, so that no word gets another meaning

    Each is the model with None in place of what the other one has.
    """

    def half(*, ends: bool) -> Llama:
        def kept(path: tuple[Any, ...], parameter: nnx.Variable) -> Any:
            return parameter if (path[0].name in _ENDS) == ends else None

        return jax.tree_util.tree_map_with_path(kept, llama, is_leaf=_is_parameter)

    return half(ends=False), half(ends=True)


def joined(one: Llama, other: Llama) -> Llama:
    """The model of which these are two parts, as of `divided`.

    Raises:
      ValueError: both have the same parameter.
    """

    def either(here: Any, there: Any) -> Any:
        if here is not None and there is not None:
            raise ValueError("a parameter of the llama both learns and is frozen")
        return there if here is None else here

    return jax.tree.map(
        either, one, other, is_leaf=lambda node: node is None or _is_parameter(node)
    )


_ENDS = ("embedding", "head")


def _is_parameter(node: Any) -> bool:
    return isinstance(node, nnx.Variable)
