r"""Recordings under free licences, from Debian's packages of games and of speech.

    make music      # or: python -m musilingo_jax.recipes.recordings --out=build/music

About 25 hours of music that people made and released, most of it electronic. What is
learnt from and what is left out is decided by **package**, never by song: the songs of
one package share composers, instruments and a sound, so songs of a package that was
learnt from say little about others. Nothing of it is shipped with this project but half
minutes of a few songs that were left out (`example_songs.py`).

Each package is downloaded by version, checked by its SHA-256, and only its music and
its list of licences are kept. A package that is complete is not downloaded again.
"""

import argparse
import hashlib
import io
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from musilingo_jax.recipes.excerpts import Track
from musilingo_jax.recipes.packages import LEARN, LEFT_OUT, PACKAGES, Package
from musilingo_jax.runtime import cli, storage
from musilingo_jax.runtime.command_line import CommandParser, nonempty
from musilingo_jax.runtime.errors import UserError

SUFFIXES = (".ogg", ".oga", ".opus", ".mp3", ".flac", ".wav")
# The name of the file that says a package is complete.
_COMPLETE = "complete"
# The folders of a package.
_MUSIC, _SPEECH, _CHARTS = "music", "speech", "charts"
_CHART = ".mid"
CHARTED = tuple(package for package in PACKAGES if package.charts)
"""The packages whose songs have a chart."""


def fetch(folder: Path, packages: Sequence[Package] = PACKAGES) -> None:
    """Downloads and unpacks what is missing.

    Args:
      folder: gets a folder for each package.
      packages: which are wanted.

    Raises:
      UserError: Debian's tools are not there, a package of that version cannot be had,
        or what was downloaded is something else.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise UserError(
                f"{tool} is not on this machine: the recordings are in Debian's "
                "packages; use Debian, or a container of it"
            )
    folder.mkdir(parents=True, exist_ok=True)
    missing = [p for p in packages if not _is_complete(folder, p)]
    for package in cli.progress(
        missing, total=len(missing), unit="package", label="music"
    ):
        file = _download(package, folder)
        _unpack(file, package, folder / package.name)
        file.unlink()


def tracks(folder: Path, role: str, *, speech: bool = False) -> list[Track]:
    """The songs of all packages with a role, or what is spoken there, in fixed order.

    Raises:
      UserError: a package is not there.
    """
    found = []
    for package in PACKAGES:
        if package.role != role:
            continue
        place = folder / package.name
        if not _is_complete(folder, package):
            raise UserError(
                f"{place} is not complete: `make music` downloads what is missing"
            )
        place = place / (_SPEECH if speech else _MUSIC)
        songs = sorted(p for p in place.glob("*") if p.suffix.lower() in SUFFIXES)
        found += [Track(package.name, path) for path in songs]
    return found


def charts(folder: Path) -> dict[Path, Path]:
    """The songs with a chart → the chart, a MIDI file whose beats are the song's.

    Raises:
      UserError: a package is not there.
    """
    found = {}
    for package in CHARTED:
        if not _is_complete(folder, package):
            raise UserError(
                f"{folder / package.name} is not complete: `make music` downloads what "
                "is missing"
            )
        for chart in sorted((folder / package.name / _CHARTS).glob(f"*{_CHART}")):
            name = chart.stem.rpartition("__")[0]
            for song in (folder / package.name / _MUSIC).glob(f"{name}__*"):
                found[song] = chart
    return found


def _is_complete(folder: Path, package: Package) -> bool:
    place = folder / package.name
    if not (place / _COMPLETE).exists():
        return False
    return not package.charts or (place / _CHARTS).exists()


def _download(package: Package, folder: Path) -> Path:
    """The file of a package, checked."""
    wanted = f"{package.name}={package.version}"
    done = subprocess.run(
        ["apt-get", "download", wanted], cwd=folder, capture_output=True, text=True
    )
    files = sorted(folder.glob(f"{package.name}_*.deb"))
    if done.returncode or len(files) != 1:
        said = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise UserError(
            f"apt-get download {wanted}: {said}; the recordings are those of Debian "
            "12: add it to the sources of apt, and run `apt-get update`"
        )
    with files[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        raise UserError(
            f"{files[0]}: its SHA-256 is {digest[:12]}… and not "
            f"{package.sha256[:12]}…: it is another file than the one learnt from; "
            "delete it, and get it again"
        )
    return files[0]


def _unpack(file: Path, package: Package, place: Path) -> None:
    """Keeps the music of a package, flat, and its list of licences."""
    shutil.rmtree(place, ignore_errors=True)
    for name in (_MUSIC, _SPEECH, _CHARTS):
        (place / name).mkdir(parents=True)
    kept = 0
    with (
        subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE
        ) as unpacking,
        tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive,
    ):
        for name, content in _files(archive):
            if name.endswith(f"/doc/{package.name}/copyright"):
                (place / "copyright").write_bytes(content)
            elif package.charts and fnmatch(name, package.charts):
                _write(place / _CHARTS, name, content)
            elif PurePosixPath(name).suffix.lower() not in SUFFIXES:
                continue
            elif package.music and fnmatch(name, package.music):
                _write(place / _MUSIC, name, content)
                kept += 1
            elif package.speech and fnmatch(name, package.speech):
                _write(place / _SPEECH, name, content, names=3)
                kept += not package.music
    if unpacking.returncode or not kept:
        raise UserError(
            f"{file}: cannot be unpacked, or has nothing under "
            f"{package.music or package.speech}; delete it, and get it again"
        )
    storage.write_text(place / _COMPLETE, f"{kept} recordings\n")


def _files(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """The path and content of each file that may be kept, and of those in a .pk3."""
    wanted = (*SUFFIXES, _CHART, ".pk3", "/copyright")
    for member in archive:
        name = member.name
        if not member.isfile() or not name.lower().endswith(wanted):
            continue
        file = archive.extractfile(member)
        assert file is not None  # It is a file.
        content = file.read()
        if name.endswith(".pk3"):
            with zipfile.ZipFile(io.BytesIO(content)) as pack:
                for inside in pack.namelist():
                    if inside.lower().endswith(SUFFIXES):
                        yield f"{name}/{inside}", pack.read(inside)
        else:
            yield name, content


def _write(place: Path, name: str, content: bytes, names: int = 2) -> None:
    """Writes a file under the last names of its path: several may share the last."""
    path = place / "__".join(PurePosixPath(name).parts[-names:])
    path.write_bytes(content)


def parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(
        prog="python -m musilingo_jax.recipes.recordings", description=__doc__
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=nonempty,
        required=True,
        help="gets a folder for each package",
    )
    parser.add_argument(
        "--charted",
        action="store_true",
        help="only the packages whose songs have a chart (30 MB)",
    )
    return parser


def main(given: argparse.Namespace) -> None:
    """Downloads what is missing, and says what is there."""
    folder = Path(given.out)
    if given.charted:
        fetch(folder, CHARTED)
        print(f"{len(charts(folder))} songs with a chart")
        return
    fetch(folder)
    for role in (LEARN, LEFT_OUT):
        found = tracks(folder, role)
        packages = len({track.package for track in found})
        print(f"{role}: {len(found)} songs in {packages} packages")


if __name__ == "__main__":
    cli.run(main, parser())
