"""What ffmpeg decodes where it is installed, through a pipe."""

import contextlib
import os
import re
import signal
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from musilingo_jax.audio.formats.sound import Sound, block_frames, check, check_start
from musilingo_jax.runtime.errors import UserError

# It decodes hundreds of seconds a second: when it gives none for so long, it hangs.
STALL_SECONDS = 60.0


def open_pipe(path: Path, kind: str, skip: int) -> Sound:
    """Opens a file whose first `skip` seconds are not wanted.

    ffmpeg writes an AU file, whose header is five numbers, into a pipe. The demuxer is
    named, and only files may be opened: ffmpeg would follow a playlist into the
    network.

    Args:
      path: the file.
      kind: ffmpeg's name for its format.
      skip: seconds to leave out.

    Raises:
      UserError: ffmpeg is not installed or cannot begin to decode the file, or the file
        is absurd.
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
    """ffmpeg at work."""

    def __init__(self, path: Path, command: list[str]):
        self.path = path
        # Errors go to a file, for nobody empties a second pipe.
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

    def read(self, size: int) -> bytes:
        """So many bytes, fewer at the end; ends ffmpeg if they do not come."""
        watch = threading.Timer(STALL_SECONDS, self._kill)
        watch.daemon = True
        watch.start()
        try:
            return self._process.stdout.read(size)
        finally:
            watch.cancel()

    def check_end(self, seconds: float) -> None:
        """Refuses the file if ffmpeg ended otherwise than well."""
        try:
            status = self._process.wait(STALL_SECONDS)
        except subprocess.TimeoutExpired:
            status = -signal.SIGKILL
        if status == -signal.SIGKILL:
            raise UserError(
                f"{self.path}: cannot be decoded: ffmpeg was killed, or gave nothing "
                f"for {STALL_SECONDS:.0f} s"
            )
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        if status or said:
            # Without the part of ffmpeg that says it and where that lies in memory.
            reason = re.sub(r"^\[.*?\] ", "", said[-1]) if said else f"status {status}"
            reason = reason.removeprefix(f"file:{self.path}: ")
            raise UserError(
                f"{self.path}: damaged or cut off after {seconds:.1f} s (ffmpeg: "
                f"{reason.strip()}); get or export it again"
            )

    def close(self) -> None:
        self._kill()
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()

    def _kill(self) -> None:
        """Ends ffmpeg, and what it may have started, which would keep the pipe open."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)


def _blocks(
    pipe: _Pipe, rate: int, channels: int, skip: int
) -> Iterator[Float[np.ndarray, " frames"]]:
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
