"""Opens a page on which people ask questions about songs, in their browsers.

    musilingo web
    musilingo web --model=m-a-p/MusiLingo-long-v1 --port=8080
    musilingo web --host=0.0.0.0 --password-file=password.txt

    python -m musilingo_jax.web --port=8080

The page is for this machine unless --host says otherwise. Uploaded songs are in a
private folder, and removed when a conversation is cleared or its tab closed, at the
latest when the program ends. Needs the extra `web`: `pip install 'musilingo-jax[web]'`.
"""

import argparse
import time

from musilingo_jax.answering.model import EMBEDDED, Model
from musilingo_jax.runtime import cli, listening, signals
from musilingo_jax.runtime.command_line import CommandParser, positive
from musilingo_jax.runtime.errors import UsageError
from musilingo_jax.runtime.printable import print_note
from musilingo_jax.web import cards, password, uploads
from musilingo_jax.web.limits import Limits
from musilingo_jax.web.people import People
from musilingo_jax.web.session import Session, Settings

_LOOK_EVERY = 0.2
_MOST_LETTERS = 2000


def parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(prog="python -m musilingo_jax.web", description=__doc__)
    add = parser.add_argument
    listening.add_arguments(parser, port=7860)
    secret = f"a password that people are asked for; or ${password.VARIABLE}"
    add("--password-file", metavar="FILE", help=secret)
    rows = "questions that are answered at the same time (default: 8)"
    add("--rows", metavar="N", type=positive, default=8, help=rows)
    upload = "MiB of a song (default: 64)"
    add("--max-upload", metavar="MIB", type=positive, default=64, help=upload)
    songs = "songs of a conversation (default: 4)"
    add("--max-songs", metavar="N", type=positive, default=4, help=songs)
    minutes = "minutes of a song (default: 30)"
    add("--max-minutes", metavar="N", type=positive, default=30, help=minutes)
    people = "conversations that are kept (default: 200)"
    add("--max-people", metavar="N", type=positive, default=200, help=people)
    return parser


def main(given: argparse.Namespace) -> None:
    """Loads a model and opens the page until a signal comes."""
    secret = password.load(given.password_file)
    with uploads.folder() as folder:
        try:
            # After the folder, which Gradio reads when it is imported.
            from musilingo_jax.web import page, site
        except ModuleNotFoundError as error:
            raise UsageError(
                f"the package {error.name} is missing: "
                "`pip install 'musilingo-jax[web]'`"
            ) from error
        port = site.free_port(given.host, given.port)
        if given.host not in listening.LOOPBACK and secret is None:
            print_note(
                f"note: whoever reaches {given.host} may ask: --password-file asks for "
                "a password"
            )
        limits = Limits(
            song_bytes=given.max_upload << 20,
            song_seconds=given.max_minutes * 60.0,
            songs=given.max_songs,
            letters=_MOST_LETTERS,
            people=given.max_people,
        )
        name = given.model or EMBEDDED
        print_note(f"loading {name} …")
        with Model.load(
            name, adapter=given.adapter, style=given.style, rows=given.rows
        ) as model:
            usual = model.decoding()
            people = People(
                lambda: Session(model, limits, listening.shown_name(name)),
                most=limits.people,
                folder=folder,
            )
            head = cards.header(
                listening.shown_name(name),
                model.max_seconds,
                usual.max_new_tokens,
                limits.song_seconds,
            )
            built = page.build(
                people,
                head=head,
                usual=Settings(
                    usual.temperature, usual.top_p, usual.max_new_tokens, usual.seed
                ),
                most_tokens=usual.max_new_tokens,
            )
            with (
                signals.stop_request() as request,
                site.opened(
                    built,
                    host=given.host,
                    port=port,
                    secret=secret,
                    most_bytes=limits.song_bytes,
                ) as address,
            ):
                print(f"open {address} in a browser; Ctrl-C ends it", flush=True)
                while request.signal is None:
                    time.sleep(_LOOK_EVERY)
                request.taken = True
    request.exit()


if __name__ == "__main__":
    cli.run(main, parser())
