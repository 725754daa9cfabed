"""Files that ffmpeg decodes, if it is installed, through a pipe."""

import contextlib
import os
import re
import signal
import struct
import subprocess
import tempfile
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from musilingo_jax.audio.formats.sound import (
    Mixer,
    Sound,
    block_frames,
    check,
    check_start,
)
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import open_regular_file

# It decodes hundreds of seconds of sound per second: if this long none comes, it hangs.
STALL_SECONDS = 60.0
# Format → bytes of the header of a box.
_BOX_HEADERS = {"mov": 8, "asf": 24}
_MOST_BOXES = 1_000_000
# Boxes of which each song has one: `moov` of MP4, and the header object of WMA.
_HEADERS = (
    b"moov",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
)


def open_pipe(path: Path, kind: str, skip: int) -> Sound:
    """Opens a file, leaving out its first `skip` seconds.

    ffmpeg writes an AU file, whose header is five numbers, into a pipe. It is given the
    demuxer and may open files only: it would follow a playlist into the network.

    Args:
      path: the file.
      kind: ffmpeg's name for its format.
      skip: seconds at the beginning to leave out.

    Raises:
      UserError: ffmpeg is not installed, finds no sound in the file, or finds several
        streams of it or impossible values; or another song follows in the file.
    """
    _check_single(path, kind)
    source = ["-protocol_whitelist", "file", "-f", kind, "-i", f"file:{path}"]
    command = ["ffmpeg", "-nostdin", "-v", "error", "-xerror", *source]
    # All streams of sound: an AU file cannot hold several, so ffmpeg refuses them.
    command += ["-map", "0:a", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
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
            if (count := _streams(source)) > 1:
                raise UserError(
                    f"{path}: holds {count} streams of sound at once, so which one is "
                    "meant is unclear; take one out, as by `ffmpeg -i … -map 0:a:0 "
                    "song.flac`"
                )
            pipe.check_end(0.0)
            raise UserError(f"{path}: cannot be decoded: ffmpeg finds no sound in it")
        _, size, _, _, rate, channels = struct.unpack(">4s5I", header)
        check(path, rate=rate, channels=channels)
        pipe.read(size - len(header))
    except UserError:
        pipe.close()
        raise
    notices: list[str] = []
    return Sound(rate, _blocks(pipe, rate, channels, skip, notices), notices)


def _check_single(path: Path, kind: str) -> None:
    """Checks that no second song follows, which ffmpeg would leave out.

    Raises:
      UserError: one does, as after `cat a.m4a b.m4a`.
    """
    headers = sum(name in _HEADERS for name in _boxes(path, kind))
    if headers > 1:
        raise UserError(
            f"{path}: holds {headers} songs one after the other, of which ffmpeg "
            "decodes the first one only; split it"
        )


def _boxes(path: Path, kind: str) -> Iterator[bytes]:
    """The names of the boxes (of MP4) or objects (of WMA) that the file consists of."""
    if kind not in _BOX_HEADERS:
        return
    header = _BOX_HEADERS[kind]
    place = 0
    with open_regular_file(path) as file:
        end = os.fstat(file.fileno()).st_size
        for _ in range(_MOST_BOXES):
            if place >= end:  # As far as a damaged size leads.
                return
            file.seek(place)
            head = file.read(24)
            if len(head) < header:
                return
            if kind == "mov":
                size, name = int.from_bytes(head[:4], "big"), head[4:8]
                size = int.from_bytes(head[8:16], "big") if size == 1 else size
            else:
                size, name = int.from_bytes(head[16:24], "little"), head[:16]
            yield name
            if size < header:  # 0 is "to the end of the file".
                return
            place += size


def _streams(source: list[str]) -> int:
    """How many streams of sound ffmpeg finds; 0 if it does not say."""
    command = ["ffmpeg", "-nostdin", "-hide_banner", *source]
    try:
        probe = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=STALL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return len(re.findall(rb"^ *Stream #.*: Audio: ", probe.stderr, re.MULTILINE))


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
    pipe: _Pipe, rate: int, channels: int, skip: int, notices: list[str]
) -> Generator[Float[np.ndarray, " frames"], None, None]:
    mixer = Mixer(notices)
    frame = 4 * channels
    first = skip * rate
    done = 0
    with contextlib.closing(pipe), contextlib.ExitStack() as stack:
        stack.callback(mixer.finish)
        while data := pipe.read(frame * block_frames(rate, channels)):
            count = len(data) // frame
            block = np.frombuffer(data[: count * frame], ">f4").reshape(-1, channels)
            block = block[max(0, first - done) :]
            done += count
            if len(block):
                yield mixer.mix(block)
        pipe.check_end(done / rate)
        check_start(pipe.path, seconds=done / rate, skip=skip)
