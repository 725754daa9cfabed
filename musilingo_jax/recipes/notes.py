"""Which notes sound in excerpts, by basic-pitch.

The model (Bittner et al. 2022, "A Lightweight Instrument-Agnostic Model for Polyphonic
Note Transcription and Multipitch Estimation") is the ONNX file in the package
`basic-pitch` 0.4.0 (Apache-2.0 licence), run by `onnxruntime`; no code of the package
is run. It hears windows of two seconds, of which the ends are left out, since a note
there has half its sound only:

    waveform    ├──────────────────────────────────────┤
    windows   ├··────────··┤                                 · is left out
                      ├··────────··┤
                              ├··────────··┤
"""

import functools
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from jaxtyping import Float, Int

from musilingo_jax.recipes.soundfont import SAMPLE_RATE
from musilingo_jax.runtime import cli, storage
from musilingo_jax.runtime.errors import UserError

WHEEL = "basic_pitch.whl"
"""The name of the file below `build/teachers`."""
SHA256 = "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0"
"""Of `basic_pitch-0.4.0-py2.py3-none-any.whl`."""
BLOCK = 64  # excerpts in a file; an interrupted one is computed again

_FILE = "basic_pitch/saved_models/icassp_2022/nmp.onnx"
_NOTES = "StatefulPartitionedCall:1"
_RATE, _HOP = 22_050, 256
_WINDOW = 2 * _RATE - _HOP  # samples, of which the model makes 172 frames
_OVERLAP = 30  # frames that two windows share; half of them are left out at each end
_LOWEST = 21  # MIDI's number of the first of 88 pitches: A0


def chroma(
    waveform: Int[np.ndarray, "excerpts samples"],
    wheel: Path,
    folder: Path,
    *,
    frames: int,
    frames_per_second: float,
) -> Float[np.ndarray, "excerpts frames 12"]:
    """The probability that a pitch class sounds, in each frame of each excerpt.

    Args:
      waveform: at 24 kHz, 16 bits.
      wheel: the package.
      folder: keeps what was computed, by the excerpts' own digest.
      frames: of the result; frame `i` begins at `i / frames_per_second` seconds.
      frames_per_second: their rate.

    Raises:
      UserError: the wheel is not the package, or `onnxruntime` is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    places = range(0, len(waveform), BLOCK)
    for begin in cli.progress(places, total=len(places), unit="block", label="notes"):
        block = np.ascontiguousarray(waveform[begin : begin + BLOCK])
        settings = f"{SHA256} {frames} {frames_per_second}".encode()
        name = hashlib.sha256(settings + block.data).hexdigest()[:24]
        path = folder / f"{name}.npy"
        if not path.exists():
            model = _model(wheel)
            heard = [_chroma(model, e, frames, frames_per_second) for e in block]
            with storage.atomic(path) as partial, partial.open("wb") as file:
                np.save(file, np.stack(heard).astype(np.float16))
        found.append(np.load(path).astype(np.float32))
    return np.concatenate(found)


@functools.cache
def _model(wheel: Path) -> Any:
    """The model in the package."""
    try:
        import onnxruntime  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError(
            "notes are heard by onnxruntime: pip install onnxruntime==1.32.0"
        ) from error
    advice = "get it with `make teachers`"
    try:
        with wheel.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{wheel}: cannot be read ({error.strerror}); {advice}") from (
            error
        )
    if digest != SHA256:
        raise UserError(f"{wheel}: is not the wheel of basic-pitch 0.4.0; {advice}")
    with zipfile.ZipFile(wheel) as package:
        return onnxruntime.InferenceSession(
            package.read(_FILE), providers=["CPUExecutionProvider"]
        )


def _chroma(
    model: Any,
    excerpt: Int[np.ndarray, " samples"],
    frames: int,
    frames_per_second: float,
) -> Float[np.ndarray, "frames 12"]:
    """One excerpt's pitch classes, at another frame rate."""
    sound = soxr.resample(excerpt.astype(np.float32) / 32768, SAMPLE_RATE, _RATE)
    notes = _notes(model, sound)
    by_class = np.zeros((len(notes), 12), np.float32)
    for pitch in range(notes.shape[1]):
        column = (pitch + _LOWEST) % 12
        by_class[:, column] = np.maximum(by_class[:, column], notes[:, pitch])
    centres = (np.arange(frames) + 0.5) / frames_per_second
    heard_at = (np.arange(len(notes)) + 0.5) * _HOP / _RATE
    return np.stack(
        [np.interp(centres, heard_at, column) for column in by_class.T], axis=1
    )


def _notes(
    model: Any, sound: Float[np.ndarray, " samples"]
) -> Float[np.ndarray, "frames 88"]:
    """The probability of each pitch in each of the model's own frames."""
    margin = _OVERLAP // 2
    step = _WINDOW - _OVERLAP * _HOP
    padded = np.pad(sound, (margin * _HOP, 0))
    windows = [
        np.pad(part, (0, _WINDOW - len(part)))
        for start in range(0, len(sound), step)
        if len(part := padded[start : start + _WINDOW])
    ]
    (name,) = (given.name for given in model.get_inputs())
    heard = model.run([_NOTES], {name: np.stack(windows)[..., None]})[0]
    inner = heard[:, margin:-margin].reshape(-1, heard.shape[2])
    return inner[: round(len(sound) / _HOP)]
