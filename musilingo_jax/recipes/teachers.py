r"""What trained taggers hear in songs: teachers of a model that hears recordings.

    make teachers                    # downloads the package with their weights
    python -m musilingo_jax.recipes.teachers song.mp3 --wheel=build/teachers/musicnn.whl

Prints the likeliest tags of each song, by the two taggers of musicnn: the mean of their
probabilities over all whole patches of three seconds. No code of the package is run,
and nothing of it is shipped with this one (ISC licence, Jordi Pons).
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from musilingo_jax.annotation.tags import load, probabilities
from musilingo_jax.audio import waveforms
from musilingo_jax.models.taggers import musicnn
from musilingo_jax.models.taggers.musicnn import TAGS, Musicnn
from musilingo_jax.runtime import cli, platforms
from musilingo_jax.runtime.command_line import CommandParser, nonempty, positive
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note, printable


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
    try:
        return probabilities(teachers, waveform)
    except UserError as error:
        raise UserError(f"{song}: {error}") from error


if __name__ == "__main__":
    cli.run(main, parser())
