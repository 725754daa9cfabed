"""Answers questions about songs over HTTP, in the protocol of OpenAI.

    musilingo serve
    musilingo serve --model=m-a-p/MusiLingo-long-v1 --rows=32
    musilingo serve --host=0.0.0.0 --api-key-file=key.txt

    python -m musilingo_jax.serve --port=9000

Clients ask at `/v1/chat/completions`, with songs as `input_audio` or `audio_url`; see
`docs/serve.md`. The server is for this machine unless --host says otherwise. SIGTERM
and Ctrl-C end it when the answers are finished that are on their way.
Needs the extra `serve`: `pip install 'musilingo-jax[serve]'`.
"""

import argparse

from musilingo_jax.runtime import cli, listening, signals
from musilingo_jax.runtime.command_line import CommandParser, nonempty, positive
from musilingo_jax.runtime.errors import UsageError
from musilingo_jax.runtime.printable import print_note
from musilingo_jax.serve import keys
from musilingo_jax.serve.limits import Limits

# Bodies that are in memory at once, besides those of the rows.
_SPARE_BODIES = 8
_LOOK_EVERY = 0.2


def parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(prog="python -m musilingo_jax.serve", description=__doc__)
    add = parser.add_argument
    listening.add_arguments(parser, port=8000)
    add("--name", type=nonempty, help="what clients call it; default: as --model does")
    add("--api-key-file", metavar="FILE", help=f"the clients' key; or ${keys.VARIABLE}")
    fetch = "host from which songs may be fetched; may be repeated"
    add("--allow-audio-host", metavar="HOST", action="append", default=[], help=fetch)
    rows = "questions that are answered at the same time (default: 16)"
    add("--rows", metavar="N", type=positive, default=16, help=rows)
    queue = "questions that may wait for a row (default: 64)"
    add("--queue", metavar="N", type=positive, default=64, help=queue)
    body = "MiB of a request, songs included (default: 32)"
    add("--max-body", metavar="MIB", type=positive, default=32, help=body)
    songs = "songs of a conversation (default: 4)"
    add("--max-songs", metavar="N", type=positive, default=4, help=songs)
    seconds = "length of a song (default: 900)"
    add("--max-seconds", metavar="S", type=positive, default=900, help=seconds)
    limit = "seconds that a request may take (default: 120)"
    add("--time-limit", metavar="S", type=positive, default=120, help=limit)
    rate = "requests of one address; 0: any number (default: 600)"
    add("--per-minute", metavar="N", type=_count, default=600, help=rate)
    grace = "seconds that answers have at the end of the server (default: 30)"
    add("--grace", metavar="S", type=_count, default=30, help=grace)
    return parser


def limits_of(given: argparse.Namespace) -> Limits:
    """The limits that a command line asks for."""
    body = given.max_body << 20
    return Limits(
        body_bytes=body,
        held_bytes=body * (given.rows + _SPARE_BODIES),
        body_seconds=30.0,
        songs=given.max_songs,
        song_seconds=given.max_seconds,
        answer_seconds=given.time_limit,
        requests_per_minute=given.per_minute,
        queue=given.queue,
        shutdown_seconds=given.grace,
    )


def main(given: argparse.Namespace) -> None:
    """Loads a model and serves it until a signal comes."""
    key = keys.load(given.api_key_file)
    try:
        from musilingo_jax.serve import app, runner
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the package {error.name} is missing: `pip install 'musilingo-jax[serve]'`"
        ) from error
    from musilingo_jax.serve.engine import Engine

    limits = limits_of(given)
    loopback = given.host in listening.LOOPBACK
    # Before the model, which takes a while.
    bound = runner.bind(given.host, given.port)
    if not (loopback or key):
        print_note(
            f"note: whoever reaches {given.host} may ask: --api-key-file asks for a key"
        )
    with Engine.load(
        given.model,
        adapter=given.adapter,
        style=given.style,
        name=given.name,
        rows=given.rows,
        queue=given.queue,
    ) as engine:
        server = app.make(
            engine,
            limits,
            rows=given.rows,
            key=key,
            loopback_only=loopback,
            allowed_hosts=[host.lower() for host in given.allow_audio_host],
        )
        server.state.is_warm = False
        running = runner.Running(server, bound)
        print_note(f"{engine.name} warms up at {running.address}")
        try:
            engine.warm_up()
        except BaseException:
            running.stop()
            raise
        server.state.is_warm = True
        with signals.stop_request() as request:
            print(f"{engine.name} answers at {running.address}/v1", flush=True)
            while request.signal is None and running.wait(_LOOK_EVERY):
                pass
            if request.signal is not None:
                print_note(
                    f"{request.signal.name}: no more questions are taken; answers on "
                    f"their way have {limits.shutdown_seconds:g} s (again: at once)"
                )
            running.stop()
            if request.signal is not None:
                request.taken = True
    request.exit()


def _count(text: str) -> int:
    """A whole number, as the `type` of an argument.

    Raises:
      argparse.ArgumentTypeError: it is none.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number")
    return int(text)


if __name__ == "__main__":
    cli.run(main, parser())
