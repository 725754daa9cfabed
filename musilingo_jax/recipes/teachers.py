r"""What trained taggers hear in songs: teachers of a model that hears recordings.

    make teachers                    # downloads the package with their weights
    python -m musilingo_jax.recipes.teachers song.mp3 --wheel=build/teachers/musicnn.whl

Prints the likeliest tags of each song, by the two taggers of musicnn: the mean of their
probabilities over all whole patches of three seconds. No code of the package is run,
and nothing of it is shipped with this one (ISC licence, Jordi Pons).
"""

import argparse
import hashlib
import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from musilingo_jax.audio import waveforms
from musilingo_jax.models.taggers import musicnn
from musilingo_jax.models.taggers.musicnn import TAGS, Musicnn
from musilingo_jax.pretrained import tensorflow_files
from musilingo_jax.runtime import cli, platforms
from musilingo_jax.runtime.command_line import CommandParser, nonempty, positive
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note, printable

WHEEL = "musicnn.whl"
"""The name of the file below `build/teachers`."""
SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"
"""Of `musicnn-0.1.0-py3-none-any.whl`."""

_FILES = (".index", ".data-00000-of-00001")
# Patches that are computed at once: half a minute.
_BATCH = 10


def parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(
        prog="python -m musilingo_jax.recipes.teachers", description=__doc__
    )
    parser.add_argument("songs", metavar="SONG", nargs="+", type=nonempty)
    parser.add_argument(
        "--wheel",
        metavar="FILE",
        type=nonempty,
        required=True,
        help="the package musicnn 0.1.0, as pip downloads it",
    )
    parser.add_argument(
        "--top", metavar="N", type=positive, default=8, help="tags to print (default 8)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print all probabilities, a line per song"
    )
    return parser


def main(given: argparse.Namespace) -> None:
    """Prints the tags of each song.

    Raises:
      UserError: the wheel is not the package, or a song cannot be read.
    """
    platforms.start()
    teachers = load(Path(given.wheel))
    for song in given.songs:
        heard = hear(teachers, Path(song))
        if given.json:
            said = {
                name: dict(zip(TAGS[name], map(float, each), strict=True))
                for name, each in heard.items()
            }
            print(json.dumps({"song": song, **said}))
            continue
        print(printable(song))
        for name, each in heard.items():
            best = np.argsort(-each)[: given.top]
            tags = ", ".join(f"{TAGS[name][tag]} {each[tag]:.2f}" for tag in best)
            print(f"  {name:<12} {tags}")


def load(wheel: Path) -> dict[str, Musicnn]:
    """The two taggers in the package, by the names of their folders.

    Raises:
      UserError: the file cannot be read, or is not version 0.1.0 of the package.
    """
    advice = "get it with `make teachers`, or `pip download --no-deps musicnn==0.1.0`"
    try:
        with wheel.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{wheel}: cannot be read ({error.strerror}); {advice}") from (
            error
        )
    if found != SHA256:
        raise UserError(
            f"{wheel}: is not the wheel of musicnn 0.1.0 (its SHA-256 begins with "
            f"{found[:12]}); {advice}"
        )
    loaded = {}
    with zipfile.ZipFile(wheel) as package, tempfile.TemporaryDirectory() as folder:
        for name in TAGS:
            for file in _FILES:
                package.extract(f"musicnn/{name}/{file}", folder)
            place = Path(folder) / "musicnn" / name
            loaded[name] = Musicnn.of(tensorflow_files.read(place), name)
    return loaded


def hear(
    teachers: Mapping[str, Musicnn], song: Path
) -> dict[str, Float[np.ndarray, " tags"]]:
    """The mean probability of each tag over a song, by each teacher.

    Raises:
      UserError: the song cannot be read, or is shorter than a patch.
    """
    waveform = waveforms.load(
        song,
        sample_rate=musicnn.RATE,
        tell=lambda notice: print_note(f"{song}: {notice}"),
    )
    patches = musicnn.patches_of(waveform)
    if not len(patches):
        seconds = len(waveform) / musicnn.RATE
        raise UserError(
            f"{song}: lasts {seconds:.1f} s, and these taggers need three seconds; "
            "choose a longer one"
        )
    missing = -len(patches) % _BATCH
    padded = np.pad(patches, ((0, missing), (0, 0), (0, 0)))
    heard = {}
    for name, teacher in teachers.items():
        each = [
            np.asarray(_probabilities(teacher, padded[start : start + _BATCH]))
            for start in range(0, len(padded), _BATCH)
        ]
        heard[name] = np.concatenate(each)[: len(patches)].mean(axis=0)
    return heard


@jax.jit
def _probabilities(
    teacher: Musicnn, patches: Float[np.ndarray, "batch 187 96"]
) -> jax.Array:
    return jax.nn.sigmoid(teacher(patches))


if __name__ == "__main__":
    cli.run(main, parser())
