"""Frames that an encoder of others made, in place of an encoder.

LLark hears with Jukebox, a model of five billion parameters that is only run to make
features, by a program of its own, which leaves an array per song. A folder describes
such arrays and takes the place of an encoder where songs are put into a cache:

    jukebox/
      config.json     {"stored_frames": "Jukebox 5B, layer 36", "hidden_size": 4800,
                       "frames_per_second": 10.1}
      fma_000002.npy  [frames, 4800]: of the song fma_000002.mp3, from its beginning

A song's array has the name of its file, with another ending. Its frames are averaged
over windows as those of an encoder are; nothing is heard.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from musilingo_jax.models.released_config import LARGEST_SIZE
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import read_section, setting

KEY = "stored_frames"
"""The key of a `config.json` that describes stored frames."""


@dataclass(frozen=True)
class StoredFramesConfig:
    """What made the frames.

    Attributes:
      stored_frames: its name, with all that changes them: frames of another encoder or
        another of its layers must have another.
      hidden_size: numbers in a frame.
      frames_per_second: how many frames a second of sound has.
    """

    stored_frames: str = setting()
    hidden_size: int = setting(at_least=1, at_most=LARGEST_SIZE)
    frames_per_second: float = setting(above=0)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "StoredFramesConfig":
        """Reads a `config.json`.

        Raises:
          UserError: a value is missing or cannot be used, or there is another.
        """
        made = read_section(cls, config, "config.json")
        if not made.stored_frames.strip():
            raise UserError("config.json.stored_frames does not name what made them")
        return made

    @property
    def sample_rate(self) -> int:
        """Samples per second of what is heard: nothing is."""
        return 0

    @property
    def num_hidden_layers(self) -> int:
        """Layers that can be told apart: none."""
        return 0


@jax.tree_util.register_static
@dataclass(frozen=True)
class StoredFrames:
    """Arrays of frames in a folder; without parameters.

    Attributes:
      config: what made them.
      folder: where they are; None where only their shapes are wanted.
    """

    config: StoredFramesConfig
    folder: Path | None = None

    def read(
        self, song: Path, start: float | None, end: float | None
    ) -> Float[np.ndarray, "frames width"]:
        """The frames of a stretch of a song.

        Args:
          song: its sound file, which is not read.
          start: of the stretch, in seconds; None for the song's own beginning.
          end: of the stretch, in seconds; None for the song's own end.

        Returns:
          float32; the frames that begin within the stretch.

        Raises:
          UserError: there is no array, it is damaged or of another width, or it has no
            frame within the stretch.
        """
        assert self.folder is not None
        path = self.folder / f"{song.stem}.npy"
        if not path.is_file():
            raise UserError(f"{path}: there is no such file with the frames of {song}")
        try:
            frames = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: is not a NumPy array: {error}") from error
        width = self.config.hidden_size
        numeric = np.issubdtype(frames.dtype, np.floating)
        if not numeric or frames.ndim != 2 or frames.shape[1] != width:
            raise UserError(
                f"{path}: is {frames.dtype}{list(frames.shape)}, but frames are "
                f"numbers with a fraction, [frames, {width}]"
            )
        rate = self.config.frames_per_second
        first = 0 if start is None else round(start * rate)
        last = len(frames) if end is None else min(len(frames), round(end * rate))
        if first >= last:
            seconds = len(frames) / rate
            raise UserError(f"{path}: holds {seconds:.1f} s, and none of this stretch")
        found = np.asarray(frames[first:last], np.float32)
        if not np.isfinite(found).all():
            raise UserError(f"{path}: contains NaN or infinity")
        return found
