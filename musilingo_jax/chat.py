"""Ask about a song.

    python -m musilingo_jax.chat song.ogg --ask "What is this?" --ask "How fast is it?"
    python -m musilingo_jax.chat song.ogg                       # then type questions
    python -m musilingo_jax.chat song.ogg --run=runs/tiny       # with your own adapter
    python -m musilingo_jax.chat song.ogg --model=m-a-p/MusiLingo-long-v1   # a release

Without `--run` and `--model` the embedded model answers. The `config.json` of a run
determines how features are made (`features`), how a question is put (the last of
`stages` that learns from questions) and how answers are decoded (`generate`). For the
releases of MusiLingo, folders or names on the hub, `answering/released.py` does: as
their authors' evaluation does it, or with `--style=demo` as their demo does.
"""

import contextlib
import math
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from musilingo_jax.answering import released
from musilingo_jax.answering.chat_commands import HELP, ChatCommands
from musilingo_jax.answering.conversation import Conversation
from musilingo_jax.answering.excerpt import Excerpt
from musilingo_jax.answering.model import EMBEDDED, Model
from musilingo_jax.audio import waveforms
from musilingo_jax.audio.formats.open_sound import beginning
from musilingo_jax.runtime import cli, signals
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.unicode_names import as_on_disk

USAGE = 'python -m musilingo_jax.chat song.ogg [--ask "…"] [--run runs/tiny]'

# Rows of a conversation: each keeps what was said about a song, and only what is new of
# the next prompt is read.
_SONGS_KEPT = 4
# Seconds until `input` looks for a signal that it has missed.
_LOOK_EVERY = 0.1


def converse(model: Model, excerpt: Excerpt, seconds: float) -> None:
    """Answers questions that are typed, until an empty line or the end of the input.

    Ctrl-C during an answer ends the answer; at the prompt, it ends the conversation.

    Args:
      model: what answers.
      excerpt: of the first song.
      seconds: length of excerpts of other songs at most.
    """
    with contextlib.suppress(ImportError):  # Not on Windows, and not needed there.
        import readline  # noqa: F401  (arrow keys in `input`)
    talk = Conversation(model, tell=lambda sentence: print(f"({sentence})"))
    talk.add(excerpt)
    commands = ChatCommands(talk, seconds=seconds, show=print, answer=_print_answer)
    print(HELP)
    while not commands.leaving and (line := _read_line()):
        try:
            with signals.raise_at_checks():
                if line.startswith("/"):
                    commands.carry_out(line)
                else:
                    _print_answer(talk.stream(line))
        except UserError as error:
            print(error)
        except signals.Interrupted as interrupted:
            print(" (stopped)")
            if interrupted.signal != signal.SIGINT:
                raise


def _read_line() -> str:
    """What is typed at the prompt; "" at the end of the input or after Ctrl-C."""
    try:
        with _signals_noticed():
            return input("? ").strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return ""


def _print_answer(pieces: Iterator[str]) -> None:
    """Prints an answer while it is generated."""
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


@contextlib.contextmanager
def _signals_noticed() -> Iterator[None]:
    """Lets `input` notice every signal.

    `input` handles a signal that interrupts its waiting. One that comes after it has
    printed its prompt and before it waits would have no effect until a key is pressed.
    So a timer interrupts the waiting again and again.
    """
    if not hasattr(signal, "setitimer"):  # Windows.
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, _LOOK_EVERY, _LOOK_EVERY)
    try:
        yield
    finally:
        # The timer first: without a handler, its signal ends the program.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main(argv: list[str]) -> None:
    """Reads the flags, listens and answers."""
    given = flags.FLAGS
    if given.run is not None and given.model is not None:
        raise UsageError(f"--run and --model both name what answers: give one. {USAGE}")
    if len(argv) != 2:
        wrong = "name a song" if len(argv) < 2 else "one song at a time"
        raise UsageError(f"{wrong}: {USAGE}")
    if any(not question.strip() for question in given.ask or ()):
        raise UsageError(f"--ask is empty: {USAGE}")
    if not given.ask and not sys.stdin.isatty():
        raise UsageError(f"questions are typed at a terminal only: give --ask. {USAGE}")
    for flag in ("run", "model", "adapter"):
        if getattr(given, flag) == "":
            raise UsageError(f"--{flag} is empty: leave it out, or name a folder")
    if not given.seconds >= waveforms.SHORTEST_SECONDS:  # NaN is not, either.
        raise UsageError(f"--seconds must be at least {waveforms.SHORTEST_SECONDS}")
    if given.start is not None and math.isnan(given.start):
        raise UsageError("--start is not a number")
    song = as_on_disk(Path(argv[1]))
    beginning(song)  # Refused before seconds are spent on loading the model.
    source = given.run or given.model or EMBEDDED
    rows = len(given.ask) if given.ask else _SONGS_KEPT
    model = Model.load(source, adapter=given.adapter, style=given.style, rows=rows)
    excerpt = model.hear(song, start=given.start, seconds=given.seconds)
    print(excerpt)
    if not given.ask:
        converse(model, excerpt, given.seconds)
        return
    with signals.raise_at_checks():
        answers = model.answers(excerpt, given.ask)
    for question, (text, is_cut) in zip(given.ask, answers, strict=True):
        print(f"\n{question}\n{text}{model.decoding().cut_mark if is_cut else ''}")


if __name__ == "__main__":
    # Here and not above, so that other programs can import this one's functions.
    flags.DEFINE_multi_string("ask", None, "a question; may be repeated")
    flags.DEFINE_string("run", None, "run folder of your own adapter")
    flags.DEFINE_string(
        "model", None, f"folder of a model, or its name; default: {EMBEDDED}"
    )
    flags.DEFINE_string("adapter", None, "folder of another adapter for the model")
    flags.DEFINE_enum(
        "style",
        None,
        list(released.STYLES),
        "how a release is asked; default: evaluation",
    )
    flags.DEFINE_float(
        "start", None, "second to start at; default: around the song's middle", 0
    )
    # The embedded model heard 34 s at once.
    flags.DEFINE_float("seconds", 30.0, "how much to hear; at most as in training")
    cli.run(main, arguments="SONG")
