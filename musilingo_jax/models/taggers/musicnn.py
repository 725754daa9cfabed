"""musicnn: fifty tags for three seconds of music (Pons and Serra 2019, "musicnn").

    waveform, 16 kHz
    → log-mel spectrogram, 96 bands, 62.5 frames a second
    → patches of 187 frames
    → front end: filters as high as 0.4 and 0.7 of the spectrogram, for timbre, and as
      long as 128, 64 and 32 frames, for rhythm; the greatest value over frequency
    → three convolutions over time, of which two are added to their input
    → the greatest and the mean value over time → a hidden layer → logits of the tags

Two sets of weights were published, under the ISC licence: one was trained on the tags
of MagnaTagATune, the other on those of the Million Song Dataset.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from musilingo_jax.runtime.errors import UserError

RATE = 16_000
PATCH = 187
"""Frames of a patch: three seconds."""

_BANDS, _WINDOW, _HOP = 96, 512, 256
_EPSILON = 1e-3
# Layers, in the order in which TensorFlow has numbered them.
_TIMBRE, _RHYTHM, _MIDDLE = (0, 1), (2, 3, 4), (5, 6, 7)

_MAGNATAGATUNE = """
guitar, classical, slow, techno, strings, drums, electronic, rock, fast, piano, ambient,
beat, violin, vocal, synth, female, indian, opera, male, singing, vocals, no vocals,
harpsichord, loud, quiet, flute, woman, male vocal, no vocal, pop, soft, sitar, solo,
man, classic, choir, voice, new age, dance, male voice, female vocal, beats, harp,
cello, no voice, weird, country, metal, female voice, choral
"""
_MILLION_SONGS = """
rock, pop, alternative, indie, electronic, female vocalists, dance, 00s, alternative
rock, jazz, beautiful, metal, chillout, male vocalists, classic rock, soul, indie rock,
Mellow, electronica, 80s, folk, 90s, chill, instrumental, punk, oldies, blues, hard
rock, ambient, acoustic, experimental, female vocalist, guitar, Hip-Hop, 70s, party,
country, easy listening, sexy, catchy, funk, electro, heavy metal, Progressive rock,
60s, rnb, indie pop, sad, House, happy
"""


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(text.split()).split(", "))


TAGS = {"MTT_musicnn": _listed(_MAGNATAGATUNE), "MSD_musicnn": _listed(_MILLION_SONGS)}
"""The published sets of weights → the tags, in the order of the logits."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Musicnn:
    """The weights of a tagger, by TensorFlow's names, such as "conv2d_1/kernel"."""

    weights: Mapping[str, Array | ndarray]

    @classmethod
    def of(cls, arrays: Mapping[str, ndarray], where: str) -> "Musicnn":
        """Takes the weights out of a checkpoint, which also has an optimiser's state.

        Args:
          arrays: of the checkpoint, by name.
          where: its name, for messages.

        Raises:
          UserError: weights are missing or of another shape, or not finite.
        """
        shapes = _shapes()
        wrong = [
            name
            for name, shape in shapes.items()
            if name not in arrays or arrays[name].shape != shape
        ]
        if wrong:
            raise UserError(
                f"{where}: is not a musicnn: {', '.join(wrong[:5])} is missing or of "
                "another shape; take the checkpoint from the package musicnn 0.1.0"
            )
        if broken := [n for n in shapes if not np.isfinite(arrays[n]).all()]:
            raise UserError(f"{where}: {broken[0]} holds NaN or infinity; get it again")
        return cls({name: np.asarray(arrays[name], np.float32) for name in shapes})

    def __call__(
        self, patches: Float[Array | ndarray, "batch 187 96"]
    ) -> Float[Array, "batch 50"]:
        """Logits of the tags; their sigmoid is the probability of each tag."""
        return self.logits(self.features(patches))

    def logits(
        self, features: Float[Array | ndarray, "batch 200"]
    ) -> Float[Array, "batch 50"]:
        """Logits of the tags, from the hidden layer below them."""
        return self._dense(jnp.asarray(features), "dense_1")

    def features(
        self, patches: Float[Array | ndarray, "batch 187 96"]
    ) -> Float[Array, "batch 200"]:
        """The hidden layer below the tags."""
        x = self._norm(jnp.asarray(patches, jnp.float32)[..., None], 0)
        padded = _padded(x, 7)
        front = [self._front(padded, number) for number in _TIMBRE]
        for number in _RHYTHM:
            size = self.weights[f"{_name('conv2d', number)}/kernel"].shape[0]
            front.append(self._front(_padded(x, size), number))
        found = [jnp.concatenate(front, axis=-1)]
        for number in _MIDDLE:
            # Its filters are as wide as what is below them.
            y = self._convolved(_padded(found[-1][..., None], 7), number)[:, :, 0]
            found.append(y if number == _MIDDLE[0] else y + found[-1])
        everything = jnp.concatenate(found, axis=-1)
        pooled = jnp.stack([everything.max(1), everything.mean(1)], axis=-1)
        pooled = self._norm(pooled.reshape(len(pooled), -1), 9)
        return self._norm(jax.nn.relu(self._dense(pooled, "dense")), 10)

    def _front(self, x: Array, number: int) -> Float[Array, "batch time filters"]:
        """A convolution, and its greatest value over frequency."""
        return self._convolved(x, number).max(axis=2)

    def _convolved(self, x: Array, number: int) -> Array:
        """A convolution, and its norm: [batch, time, bands, filters]."""
        name = _name("conv2d", number)
        y = jax.lax.conv_general_dilated(
            x,
            jnp.asarray(self.weights[f"{name}/kernel"]),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return self._norm(jax.nn.relu(y + self.weights[f"{name}/bias"]), number + 1)

    def _norm(self, x: Array, number: int) -> Array:
        """A batch norm, with the statistics of its training."""
        name = _name("batch_normalization", number)
        mean, variance, gamma, beta = (
            self.weights[f"{name}/{part}"]
            for part in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        return (x - mean) * jax.lax.rsqrt(variance + _EPSILON) * gamma + beta

    def _dense(self, x: Array, name: str) -> Array:
        return x @ self.weights[f"{name}/kernel"] + self.weights[f"{name}/bias"]


def patches_of(
    waveform: Float[ndarray, " samples"],
) -> Float[ndarray, "patches 187 96"]:
    """The log-mel spectrogram of a waveform in patches that follow each other.

    As musicnn computes it: the powers of librosa's mel bands in float16, and
    log10(10,000 · power + 1), here in float32 since float16 has no such numbers. What
    does not fill the last patch is left out.

    Args:
      waveform: at 16 kHz, in −1 … 1.
    """
    import librosa  # Takes a while to import.

    power = librosa.feature.melspectrogram(
        y=np.asarray(waveform, np.float32),
        sr=RATE,
        n_fft=_WINDOW,
        hop_length=_HOP,
        n_mels=_BANDS,
    )
    largest = np.finfo(np.float16).max
    power = np.minimum(power, largest).astype(np.float16).astype(np.float32)
    frames = np.log10(10_000 * power.T + 1)
    count = len(frames) // PATCH
    return frames[: count * PATCH].reshape(count, PATCH, _BANDS)


def _padded(x: Array, size: int) -> Array:
    """Zeros at both ends in time: a filter of `size` frames then keeps the length."""
    more = size - 1
    widths = [(0, 0)] * x.ndim
    widths[1] = more // 2, more - more // 2
    return jnp.pad(x, widths)


def _name(kind: str, number: int) -> str:
    return f"{kind}_{number}" if number else kind


def _shapes() -> dict[str, tuple[int, ...]]:
    """The shape of each array that the model has."""
    kernels = {
        0: (7, 38, 1, 204),
        1: (7, 67, 1, 204),
        2: (128, 1, 1, 51),
        3: (64, 1, 1, 51),
        4: (32, 1, 1, 51),
        5: (7, 561, 1, 64),
        6: (7, 64, 1, 64),
        7: (7, 64, 1, 64),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    norms = {0: 1, 9: 2 * (561 + 3 * 64), 10: 200}
    for number, shape in kernels.items():
        shapes[f"{_name('conv2d', number)}/kernel"] = shape
        shapes[f"{_name('conv2d', number)}/bias"] = shape[-1:]
        norms[number + 1] = shape[-1]
    for number, width in norms.items():
        for part in ("moving_mean", "moving_variance", "gamma", "beta"):
            shapes[f"{_name('batch_normalization', number)}/{part}"] = (width,)
    for name, fan in {"dense": (norms[9], 200), "dense_1": (200, 50)}.items():
        shapes |= {f"{name}/kernel": fan, f"{name}/bias": fan[1:]}
    return shapes
