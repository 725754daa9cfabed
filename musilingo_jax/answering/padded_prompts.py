"""Prompts with audio among their tokens, and the arrays that they are padded into."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Integer

from musilingo_jax.models.heard import WORD
from musilingo_jax.runtime.sharding import batch_sharding

# Pooled audio of one clip. With an underscore, since clips differ in length.
Features = Float[np.ndarray, "_windows width"]

# The length of a batch is padded to a multiple of this, so that few programs are
# compiled for all lengths.
LENGTH_MULTIPLE = 32


@dataclass(frozen=True)
class PromptTokens:
    """A prompt, or a part of one: tokens with audio among them.

    Attributes:
      features: pooled audio of the whole clip, also in a part of the prompt.
      tokens: token ids; 0 where audio stands.
      audio_slot: index of the audio vector at each place, or a mark of `models.heard`.
    """

    features: Features
    tokens: tuple[int, ...]
    audio_slot: tuple[int, ...]

    def split(self, place: int) -> tuple["PromptTokens", "PromptTokens"]:
        """The first `place` tokens, and the others."""
        return self._part(slice(place)), self._part(slice(place, None))

    def _part(self, part: slice) -> "PromptTokens":
        return PromptTokens(self.features, self.tokens[part], self.audio_slot[part])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PaddedPrompts:
    """Prompts, or parts of them, padded on the right.

    Two of 5 and 3 tokens and one that only fills the batch (♪: audio):

        tokens        a  ♪  ♪  b  c        lengths   5
                      d  ♪  e  .  .                  3
                      .  .  .  .  .                  0
    """

    features: jax.Array  # float32[batch, windows, width]; pooled audio
    tokens: jax.Array  # int32[batch, time]
    audio_slot: jax.Array  # int32[batch, time]; audio vector here, or `heard.WORD`
    lengths: jax.Array  # int32[batch]; 0 = an empty row


def pad(
    prompts: Sequence[PromptTokens],
    *,
    rows: int,
    multiple: int,
    windows: int,
    mesh: Mesh | None,
) -> PaddedPrompts:
    """Pads prompts to a batch and puts it on the devices.

    Args:
      prompts: at least one, at most `rows`.
      rows: rows of the batch; those without a prompt are empty.
      multiple: the length of the batch is the least multiple of this that holds all.
      windows: audio vectors that each row has room for.
      mesh: the devices; None for the default one.
    """
    length = round_up(max(len(prompt.tokens) for prompt in prompts), multiple)
    width = prompts[0].features.shape[1]
    features = np.zeros((rows, windows, width), np.float32)
    tokens = np.zeros((rows, length), np.int32)
    audio_slot = np.full((rows, length), WORD, np.int32)
    lengths = np.zeros(rows, np.int32)
    for row, prompt in enumerate(prompts):
        size = len(prompt.tokens)
        features[row, : len(prompt.features)] = prompt.features
        tokens[row, :size] = prompt.tokens
        audio_slot[row, :size] = prompt.audio_slot
        lengths[row] = size
    sharding = None if mesh is None else batch_sharding(mesh)
    arrays = jax.device_put((features, tokens, audio_slot, lengths), sharding)
    return PaddedPrompts(*arrays)


def fill_up(
    values: Sequence[int], size: int, unused: int, *, dtype: type = np.int32
) -> Integer[np.ndarray, " size"]:
    """A number for each row of a batch: `unused` for those without a prompt."""
    return np.array([*values, *[unused] * (size - len(values))], dtype)


def windows_for(prompts: Sequence[PromptTokens]) -> int:
    """Room for the audio of the prompt that has most of it, as `room_for` has it."""
    return room_for(max(1, *(len(prompt.features) for prompt in prompts)))


def room_for(windows: int) -> int:
    """Audio vectors that a row has room for, if it needs so many.

    Rounded up to a power of two, so that few programs are compiled; the vectors that
    stay unused cost next to nothing.
    """
    return 1 << (windows - 1).bit_length()


def round_up(number: int, multiple: int) -> int:
    """The least multiple of `multiple`, above 0, that is at least `number`."""
    return multiple * max(1, math.ceil(number / multiple))
