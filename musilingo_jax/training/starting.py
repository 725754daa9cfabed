"""What a run begins with: a bridge, and what is to be trained beside the weights."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import jax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from musilingo_jax.models.bridges import Bridge
from musilingo_jax.models.bridges.frames import Frames
from musilingo_jax.models.bridges.gated_values import GatedValues, GatedValuesConfig
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.llama import Llama
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.lora import MapSizes, Tuning
from musilingo_jax.models.parts import Parts, divided
from musilingo_jax.pretrained import model_config, sources, weights
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import read_section, setting
from musilingo_jax.runtime.sharding import shardings
from musilingo_jax.training.stage_config import StageConfig

M = TypeVar("M")

BRIDGE = "bridge"
"""The section of a config that describes the bridge; without it, it is MusiLingo's."""


@dataclass(frozen=True)
class FramesSection:
    """The section `bridge` of a config whose bridge marks where audio begins and ends.

    Attributes:
      marks: True.
    """

    marks: bool = setting()


@dataclass(frozen=True)
class GatedValuesSection:
    """The section `bridge` of a config whose bridge adds.

    Its other sizes follow from the models.

    Attributes:
      query_layers, blocks, block_width: as in `GatedValuesConfig`.
    """

    query_layers: int = setting(at_least=1)
    blocks: int = setting(at_least=1)
    block_width: int = setting(at_least=1)


def bridge_of(config: ConfigDict) -> type[Bridge]:
    """The kind of bridge that a config trains.

    Raises:
      UserError: its adapter cannot be found, or is described otherwise than in the
        section `bridge`.
    """
    named = model_config.named(config, "adapter")
    wanted = described(config)
    if named == "random":
        return wanted
    kind = type(weights.blueprint(sources.find(named, "adapter")).module.bridge)
    if config.get(BRIDGE) and kind is not wanted:
        raise UserError(
            f"config.{BRIDGE} describes another kind of bridge than that of "
            f"config.model.adapter = {named!r}: take one of the two out of the config"
        )
    return kind


def described(config: Mapping[str, Any] | ConfigDict) -> type[Bridge]:
    """The kind of bridge that the section `bridge` of a config describes by its keys.

    Raises:
      UserError: the section has other keys.
    """
    section = config.get(BRIDGE)
    if not section:
        return LinearBridge
    if "marks" not in section:
        return GatedValues
    marked = read_section(FramesSection, section, f"config.{BRIDGE}").marks
    return Frames if marked else LinearBridge


def check(
    config: ConfigDict, stages: Mapping[str, StageConfig], bridge: type[Bridge]
) -> None:
    """Checks what the kind of bridge asks of the other sections.

    Raises:
      UserError: they are for another kind.
    """
    reduction = config.features.reduction
    if reduction != bridge.reduction:
        raise UserError(
            f"config.features.reduction is {reduction!r}, but this bridge reads "
            f"{bridge.reduction!r}: set --config.features.reduction={bridge.reduction}"
        )
    for name, stage in stages.items():
        stage.prompt.check_place(f"config.{name}.prompt", splices=bridge.splices)
        stage.tuning.check(f"config.{name}.tuning")
        if not stage.learns:
            raise UserError(
                f"config.{name} trains nothing: set learns_bridge=True, or a rank in "
                f"config.{name}.tuning"
            )
        if stage.learns_layers and stage.tuning.anything:
            raise UserError(
                f"config.{name} trains the layers and, in its section tuning, what "
                "stands beside them: take one of the two out"
            )
        if stage.learns_layers and config.model.quantization:
            raise UserError(
                f"config.{name}.learns_layers is True, but weights of "
                f"{config.model.quantization} cannot learn: set "
                '--config.model.quantization="", or train a LoRA with '
                f"--config.{name}.tuning.rank=16"
            )


def first_parts(
    config: ConfigDict,
    features: tuple[int, ...],
    llama: LlamaConfig,
    mesh: Mesh,
) -> Parts:
    """A random bridge, or what the adapter that the config names holds.

    Args:
      config: of the run.
      features: the shape of a clip's features, [rows, width].
      llama: the language model's sizes.
      mesh: that the arrays are put on.

    Raises:
      UserError: the adapter was trained with another encoder, language model or window,
        or the section `bridge` does not fit the models.
    """
    named = model_config.named(config, "adapter")
    if named == "random":
        make = random_bridge(config, features, llama)
        return Parts(bridge=_seeded(make, config.seed, mesh))
    found = sources.find(named, "adapter").config
    parts = weights.load_adapter(named, mesh=mesh)
    needed = {"encoder_width": features[1], "language_model_width": llama.width}
    assert parts.bridge is not None  # An adapter has one.
    if parts.bridge.splices:
        needed["window_frames"] = config.features.window_frames
    else:
        needed["encoder_states"] = features[0]
    for key, value in needed.items():
        if found.get(key) != value:
            raise UserError(
                f"config.model.adapter = {named!r} has {key} {found.get(key)}, but "
                f"this config needs {value}: choose an adapter that belongs to this "
                'encoder and language model, or "random"'
            )
    return parts


def with_tuning(
    learnt: Parts,
    stage: StageConfig,
    name: str,
    llama: LlamaConfig,
    seed: int,
    mesh: Mesh,
) -> Parts:
    """With what a stage trains beside the weights, if nothing is there yet.

    Args:
      learnt: what was learnt before the stage.
      stage: its settings.
      name: of the stage.
      llama: the language model's sizes.
      seed: of new factors.
      mesh: that the arrays are put on.

    Raises:
      UserError: something else was trained beside the weights before.
    """
    sizes = MapSizes.of(llama)
    before = learnt.tuning
    if before is not None and before.sizes != sizes:
        raise UserError(
            "config.model.adapter was trained beside weights of other sizes than this "
            "language model has: choose one that belongs to it"
        )
    if not stage.tuning.anything:
        return learnt
    if before is None:
        make = functools.partial(Tuning.fresh, sizes, stage.tuning)
        return replace(learnt, tuning=_seeded(make, seed, mesh))
    if before.config != stage.tuning:
        kept, asked = asdict(before.config), asdict(stage.tuning)
        key = next(key for key in kept if kept[key] != asked[key])
        raise UserError(
            f"config.{name}.tuning.{key} is {asked[key]!r}, but what was trained "
            f"before has {kept[key]!r}: set it to the same"
        )
    return learnt


def layers_and_ends(llama: Llama, dtype: str) -> tuple[Llama, Llama]:
    """What learns of a language model in full tuning, and the rest of it.

    Args:
      llama: in float32, in which its layers learn.
      dtype: of the rest, and of all products.
    """
    layers, ends = divided(llama)
    return layers, jax.tree.map(lambda array: array.astype(dtype), ends)


def random_bridge(
    config: ConfigDict, features: tuple[int, ...], llama: LlamaConfig
) -> Callable[..., Bridge]:
    """The constructor of the bridge that a config describes.

    Args:
      config: of the run.
      features: the shape of a clip's features, [rows, width].
      llama: the language model's sizes.

    Raises:
      UserError: the section `bridge` does not fit the language model.
    """
    rows, width = features
    kind = described(config)
    if kind is not GatedValues:
        return functools.partial(kind, width, llama.width)
    section = read_section(GatedValuesSection, config[BRIDGE], f"config.{BRIDGE}")
    if section.query_layers > llama.depth:
        raise UserError(
            f"config.{BRIDGE}.query_layers is {section.query_layers}, but the language "
            f"model has {llama.depth} layers: lower it"
        )
    sizes = GatedValuesConfig(
        encoder_states=rows,
        encoder_width=width,
        language_model_width=llama.width,
        language_model_depth=llama.depth,
        language_model_heads=llama.heads,
        **asdict(section),
    )
    return functools.partial(GatedValues, sizes)


def _seeded(make: Callable[..., M], seed: int, mesh: Mesh) -> M:
    """Makes a module of random numbers where its arrays belong."""
    abstract = jax.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    seeded = jax.jit(
        lambda: make(rngs=nnx.Rngs(seed)), out_shardings=shardings(abstract, mesh)
    )
    return seeded()
