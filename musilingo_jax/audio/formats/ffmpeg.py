"""Files that ffmpeg decodes, if it is installed, through a pipe."""

import contextlib
import os
import re
import signal
import struct
import subprocess
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from musilingo_jax.audio.formats.sound import Sound, block_frames, check, check_start
from musilingo_jax.runtime.errors import UserError

# It decodes hundreds of seconds of sound per second: if this long none comes, it hangs.
STALL_SECONDS = 60.0


def open_pipe(path: Path, kind: str, skip: int) -> Sound:
    """Opens a file, leaving out its first `skip` seconds.

    ffmpeg writes an AU file, whose header is five numbers, into a pipe. It is given the
    demuxer and may open files only: it would follow a playlist into the network.

    Args:
      path: the file.
      kind: ffmpeg's name for its format.
      skip: seconds at the beginning to leave out.

    Raises:
      UserError: ffmpeg is not installed, finds no sound in the file, or finds
        impossible values.
    """
    command = ["ffmpeg", "-nostdin", "-v", "error", "-xerror"]
    command += ["-protocol_whitelist", "file", "-f", kind, "-i", f"file:{path}"]
    command += ["-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    try:
        pipe = _Pipe(path, command)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be decoded: AAC, M4A, WMA and Matroska need ffmpeg; "
            "install it, or convert the file to FLAC"
        ) from error
    try:
        header = pipe.read(24)
        if len(header) < 24:
            pipe.check_end(0.0)
            raise UserError(f"{path}: cannot be decoded: ffmpeg finds no sound in it")
        _, size, _, _, rate, channels = struct.unpack(">4s5I", header)
        check(path, rate=rate, channels=channels)
        pipe.read(size - len(header))
    except UserError:
        pipe.close()
        raise
    return Sound(rate, _blocks(pipe, rate, channels, skip))


class _Pipe:
    """A running ffmpeg."""

    def __init__(self, path: Path, command: list[str]):
        self.path = path
        # To a file: a second pipe would have to be read at the same time.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError:
            self._errors.close()
            raise
        assert self._process.stdout is not None  # It is a pipe.
        self._output = self._process.stdout

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end; kills ffmpeg if they do not come."""
        watch = threading.Timer(STALL_SECONDS, self._kill)
        watch.daemon = True
        watch.start()
        try:
            return self._output.read(size)
        finally:
            watch.cancel()

    def check_end(self, seconds: float) -> None:
        """Checks that ffmpeg ended without an error.

        Args:
          seconds: how much it decoded.

        Raises:
          UserError: it reported an error, failed, or was killed.
        """
        try:
            status = self._process.wait(STALL_SECONDS)
        except subprocess.TimeoutExpired:
            status = -signal.SIGKILL
        if status == -signal.SIGKILL:
            raise UserError(
                f"{self.path}: cannot be decoded: ffmpeg was killed, or wrote "
                f"nothing for {STALL_SECONDS:.0f} s"
            )
        self._errors.seek(0)
        errors = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        if status or errors:
            # Without the component of ffmpeg that failed and its address in memory.
            reason = re.sub(r"^\[.*?\] ", "", (errors or [f"status {status}"])[-1])
            reason = reason.removeprefix(f"file:{self.path}: ")
            raise UserError(
                f"{self.path}: damaged or cut off after {seconds:.1f} s (ffmpeg: "
                f"{reason.strip()}); get or export it again"
            )

    def close(self) -> None:
        self._kill()
        self._output.close()
        self._process.wait()
        self._errors.close()

    def _kill(self) -> None:
        """Kills ffmpeg and its own child processes, which would keep the pipe open."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)


def _blocks(
    pipe: _Pipe, rate: int, channels: int, skip: int
) -> Generator[Float[np.ndarray, " frames"], None, None]:
    frame = 4 * channels
    first = skip * rate
    done = 0
    with contextlib.closing(pipe):
        while data := pipe.read(frame * block_frames(rate, channels)):
            count = len(data) // frame
            block = np.frombuffer(data[: count * frame], ">f4").reshape(-1, channels)
            block = block[max(0, first - done) :]
            done += count
            if len(block):
                yield block.mean(axis=1, dtype=np.float32)
        pipe.check_end(done / rate)
        check_start(pipe.path, seconds=done / rate, skip=skip)
