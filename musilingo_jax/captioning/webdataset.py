"""WebDataset: tar files in which what belongs to a song has one name.

    webdataset/000000.tar
      000000000.ogg     the song's file as it is
      000000000.json    its row
      000000000.txt     its caption
      000000001.mp3 …

Names, order and times are fixed, so that equal songs make equal bytes.
"""

import io
import re
import tarfile
from collections.abc import Iterator, Sequence

from etils import epath

from musilingo_jax.captioning.captioned import (
    LeftOut,
    Song,
    as_json,
    parted,
    without_whole_file,
)
from musilingo_jax.runtime import paths, storage

FORMAT = "webdataset"
# Songs of a tar, and bytes of their sound, at most.
_SONGS, _BYTES = 1_000, 1 << 30

_NAME = re.compile(r"\d{6}\.tar", re.ASCII)


def write(songs: Sequence[Song], folder: epath.Path) -> tuple[str, list[LeftOut]]:
    """Writes the tar files; those of a larger set that was here are removed.

    Raises:
      UserError: a file cannot be written.
    """

    def problem(song: Song) -> str | None:
        if not song.path.is_file():
            return "is not there any more"
        return without_whole_file(song)

    kept, left_out = parted(songs, FORMAT, problem)
    names: set[str] = set()
    with storage.writing(folder, again="run the same command again"):
        for number, (first, part) in enumerate(_parts(kept)):
            names.add(f"{number:06}.tar")
            with storage.atomic(folder / f"{number:06}.tar") as partial:
                _pack(part, first, partial)
        for name in paths.file_sizes(folder):
            if _NAME.fullmatch(name) and name not in names:
                (folder / name).unlink()
    return f"{folder}: {len(kept):,} songs in {len(names)} tar files", left_out


def _parts(songs: Sequence[Song]) -> Iterator[tuple[int, list[Song]]]:
    """The songs of each tar, and the number of the first of them."""
    part: list[Song] = []
    size = first = 0
    for number, song in enumerate(songs):
        length = song.path.stat().st_size
        if part and (len(part) == _SONGS or size + length > _BYTES):
            yield first, part
            part, size, first = [], 0, number
        part.append(song)
        size += length
    if part:
        yield first, part


def _pack(songs: Sequence[Song], first: int, path: epath.PathLike) -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for number, song in enumerate(songs, start=first):
            suffix = song.path.suffix.lower()
            with song.path.open("rb") as file:
                size = song.path.stat().st_size
                tar.addfile(_member(f"{number:09}{suffix}", size), file)
            for name, text in (
                ("json", as_json(dict(song.row))),
                ("txt", song.caption or ""),
            ):
                data = text.encode()
                member = _member(f"{number:09}.{name}", len(data))
                tar.addfile(member, io.BytesIO(data))


def _member(name: str, size: int) -> tarfile.TarInfo:
    """A member of whom nothing depends on who makes it, or when."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member
