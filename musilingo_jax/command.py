"""Questions about music, from the command line.

    musilingo ask song.ogg "What is the tempo?" "Which key is it in?"
    musilingo ask song.ogg --json < questions.txt     # a line each, and one back
    musilingo chat song.ogg                           # a conversation
    musilingo caption song.ogg
    musilingo caption opera.flac --timeline --format=srt > opera.srt
    musilingo caption songs/ --out=captions           # a whole library
    musilingo embed song.ogg --out=song.npy
    musilingo completion bash >> ~/.bashrc

Without `--model` the embedded model answers, which was made for composed music; give a
run of your own, the folder of a release, or a name on the Hugging Face hub. Long songs
are heard in windows that are spread over them, unless `--start` or `--seconds` names a
part; what was heard is said on stderr. The other commands are the programs of this
package: `musilingo train --help` is `python -m musilingo_jax.train --help`.

Exit status: 0 when all is done, 1 when something is wrong that you can mend, 2 for a
wrong command line, 130 or 143 after Ctrl-C or SIGTERM.
"""

import argparse
import json
import queue
import runpy
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import musilingo_jax
from musilingo_jax.runtime.command_line import CommandParser, nonempty, positive
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.shell_completion import SHELLS, script

if TYPE_CHECKING:
    from musilingo_jax.answering.config import Decoding
    from musilingo_jax.answering.excerpt import Excerpt
    from musilingo_jax.answering.model import Model
    from musilingo_jax.answering.pending import Pending

PROG = "musilingo"
# The other programs: what they are for.
PROGRAMS = {
    "chat": "ask about songs at the terminal",
    "web": "open a page on which people ask about songs",
    "serve": "answer over HTTP, in the protocol of OpenAI",
    "train": "train an adapter",
    "evaluate": "score a model, or anyone's answers",
    "benchmark": "run a benchmark of the field on a model",
    "generate": "answer the questions of a corpus",
    "cache": "encode songs once",
    "annotate": "measure tempo, key, chords and more of songs",
    "instruct": "make questions and answers to train on",
    "search": "find clips like a song, or that words describe",
    "convert": "convert, merge and inspect weights",
    "plan": "see what fits on which TPU",
}
CAPTION = "caption"  # Of a song; with `--out`, a program, for a library.
RECIPES = "make the embedded model: musilingo recipes tiny, render, teachers, …"
_FORMATS = ("text", "json", "srt", "vtt")
# Questions that are read ahead of the answer that is printed.
_AHEAD = 64
# Questions that are answered at the same time.
_ROWS = 8


def parser() -> CommandParser:
    """The parser of all commands."""
    parser = CommandParser(prog=PROG, description=__doc__)
    parser.add_argument(
        "--version", action="version", version=f"{PROG} {musilingo_jax.__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, about: str, example: str = "") -> CommandParser:
        text = f"{about[0].upper()}{about[1:]}.\n\n    {example}" if example else about
        return commands.add_parser(name, help=about, description=text)

    ask = add(
        "ask", "answer questions about a song", f'{PROG} ask song.ogg "How fast is it?"'
    )
    ask.add_argument("song", help="the song")
    ask.add_argument(
        "question", nargs="*", type=nonempty, help="default: a line of stdin each"
    )
    caption = add(
        CAPTION,
        "describe a song, or with --out=DIR a library",
        f"{PROG} caption song.ogg --timeline --format=vtt\n"
        f"    {PROG} caption songs/ --out=captions --help",
    )
    caption.add_argument("song", help="the song")
    caption.add_argument(
        "--timeline",
        action="store_true",
        help="describe stretch by stretch, with times",
    )
    caption.add_argument(
        "--format", choices=_FORMATS, help="of a timeline; default: text"
    )
    embed = add(
        "embed", "write a song's features", f"{PROG} embed song.ogg --out=song.npy"
    )
    embed.add_argument("song", help="the song")
    embed.add_argument(
        "--out", required=True, type=nonempty, help="a NumPy file: [windows, width]"
    )
    for one in (ask, caption, embed):
        _add_model(one)
        one.add_argument("--json", action="store_true", help="print JSON")
    for one in (ask, caption):
        _add_part(one)
        _add_decoding(one)
    completion = add("completion", "print a script that completes commands in a shell")
    completion.add_argument("shell", choices=SHELLS)
    for name, about in {**PROGRAMS, "recipes": RECIPES}.items():
        commands.add_parser(name, help=about, add_help=False)
    return parser


def _add_model(parser: CommandParser) -> None:
    parser.add_argument("--model", type=nonempty, help="folder or name of a model")
    parser.add_argument("--adapter", type=nonempty, help="folder of another adapter")
    parser.add_argument("--style", help="how a release is asked: evaluation or demo")


def _add_part(parser: CommandParser) -> None:
    parser.add_argument("--start", type=float, metavar="N", help="second to start at")
    parser.add_argument("--seconds", type=float, metavar="N", help="how much to hear")


def _add_decoding(parser: CommandParser) -> None:
    parser.add_argument(
        "--temperature", type=float, metavar="N", help="0 for the likeliest answer"
    )
    parser.add_argument("--top-p", type=float, metavar="N", help="draw among likelier")
    parser.add_argument("--max-new-tokens", type=positive, metavar="N", help="then cut")
    parser.add_argument("--seed", type=int, metavar="N", help="of the draws")
    parser.add_argument("--stop", action="append", type=nonempty, help="ends an answer")


def main() -> None:
    """Runs a command, or the program of that name, and exits."""
    words = sys.argv[1:]
    if program := program_of(words):
        _run_program(program, words[1:])
    elif words and words[0] == "recipes":
        name = words[1] if len(words) > 1 else ""
        folder = Path(musilingo_jax.__file__).parent / "recipes"
        from musilingo_jax.runtime.printable import print_note

        recipes = ("tiny", "render", "teachers", "annotation_errors")
        if name not in recipes or not (folder / f"{name}.py").is_file():
            print_note(f"error: name a recipe: {', '.join(recipes)}")
            sys.exit(2)
        _run_program(f"recipes.{name}", words[2:])
    else:
        from musilingo_jax.runtime import cli

        cli.run(carry_out, parser())


def program_of(words: Sequence[str]) -> str | None:
    """The program that a command line calls; None for a command of this one's own."""
    if words and words[0] in PROGRAMS:
        return words[0]
    library = any(word.partition("=")[0] == "--out" for word in words)
    return CAPTION if words[:1] == [CAPTION] and library else None


def _run_program(name: str, words: list[str]) -> None:
    """Runs `python -m musilingo_jax.<name>` in this process."""
    sys.argv = [f"{PROG} {name}", *words]
    runpy.run_module(f"musilingo_jax.{name}", run_name="__main__", alter_sys=True)


def carry_out(given: argparse.Namespace) -> None:
    """Carries out a command of this program's own."""
    match given.command:
        case "completion":
            print(script(given.shell, PROG, parser()), end="")
        case "ask":
            _ask(given)
        case "caption" if given.timeline:
            _timeline(given)
        case "caption":
            _caption(given)
        case "embed":
            _embed(given)


def _load(given: argparse.Namespace, *, rows: int) -> "Model":
    """The model, after a look at the song, which is refused before that takes time.

    Args:
      given: the command line.
      rows: questions that are answered at the same time, at most `_ROWS`.
    """
    from musilingo_jax.answering.model import EMBEDDED, Model
    from musilingo_jax.audio.formats.open_sound import beginning
    from musilingo_jax.runtime.unicode_names import as_on_disk

    given.song = str(as_on_disk(Path(given.song)))
    if given.command == CAPTION and Path(given.song).is_dir():
        raise UsageError(
            f"{given.song} is a folder: say where its captions go with --out=DIR"
        )
    beginning(Path(given.song))
    return Model.load(
        given.model or EMBEDDED,
        adapter=given.adapter,
        style=given.style,
        rows=min(rows, _ROWS),
    )


def _hear(model: "Model", given: argparse.Namespace) -> "Excerpt":
    """Listens, and says on stderr what was heard."""
    from musilingo_jax.runtime.printable import print_note

    excerpt = model.hear(given.song, given.start, given.seconds)
    print_note(str(excerpt))
    return excerpt


def _decoding(given: argparse.Namespace) -> "Decoding":
    names = ("temperature", "top_p", "max_new_tokens", "seed", "stop")
    typed: Any = {k: v for k in names if (v := getattr(given, k)) is not None}
    return typed


def _ask(given: argparse.Namespace) -> None:
    if not given.question and sys.stdin.isatty():
        raise UsageError(
            f'give a question, as in {PROG} ask song.ogg "How fast is it?"; or `{PROG} '
            "chat song.ogg` for a conversation"
        )
    model = _load(given, rows=len(given.question) or _ROWS)
    excerpt, decoding = _hear(model, given), _decoding(given)
    lines = (line.strip() for line in sys.stdin)
    questions: Iterable[str] = given.question or (line for line in lines if line)
    for question, pending in _asked(model, excerpt, questions, decoding):
        answer = pending.answer()
        if given.json:
            row = {
                "song": given.song,
                "question": question,
                "answer": answer.text,
                "cut": answer.is_cut,
                "prompt_tokens": pending.prompt_tokens,
                "answer_tokens": pending.answer_tokens,
            }
            print(json.dumps(row, ensure_ascii=False), flush=True)
            continue
        mark = model.decoding(**decoding).cut_mark if answer.is_cut else ""
        # A line for each question, whatever is in it.
        print(" ".join(answer.text.split()) + mark, flush=True)


def _asked(
    model: "Model",
    excerpt: "Excerpt",
    questions: Iterable[str],
    decoding: "Decoding",
) -> Iterator[tuple[str, "Pending"]]:
    """Questions with the answers that are on their way, in order.

    Another thread reads the questions, so that one that comes late keeps no answer
    waiting, and those that are there share a batch.
    """
    waiting: queue.Queue[tuple[str, Pending] | Exception | None] = queue.Queue(_AHEAD)

    def read() -> None:
        try:
            for question in questions:
                waiting.put((question, model.submit(excerpt, question, **decoding)))
            waiting.put(None)
        except Exception as error:  # Raised again in the main thread.
            waiting.put(error)

    threading.Thread(target=read, daemon=True).start()
    while item := waiting.get():
        if isinstance(item, Exception):
            raise item
        yield item


def _caption(given: argparse.Namespace) -> None:
    if given.format not in (None, "text", "json"):
        raise UsageError(f"--format={given.format} needs times: add --timeline")
    model = _load(given, rows=1)
    text = model.caption(_hear(model, given), **_decoding(given))
    if given.json or given.format == "json":
        row = {"song": given.song, "model": model.name, "caption": text}
        text = json.dumps(row, ensure_ascii=False)
    print(text)


def _timeline(given: argparse.Namespace) -> None:
    from musilingo_jax.answering import timeline
    from musilingo_jax.answering.excerpt import clock
    from musilingo_jax.runtime.printable import print_note

    if given.start is not None or given.seconds is not None:
        raise UsageError(
            "--timeline hears the whole song: leave out --start, --seconds"
        )
    wanted = given.format or ("json" if given.json else "text")
    model = _load(given, rows=_ROWS)
    walk = timeline.Timeline(
        model,
        given.song,
        tell=lambda notice: print_note(f"note: {given.song}: {notice}"),
        **_decoding(given),
    )
    lines = []
    for line in walk.lines():
        lines.append(line)
        if wanted == "text":
            span = f"{clock(line.start)}–{clock(line.stop)}"
            print(f"{span}  {' '.join(line.text.split())}", flush=True)
    summary = walk.summary()
    match wanted:
        case "text":
            print(f"\n{summary}")
        case "json":
            print(timeline.as_json(given.song, model.name, lines, summary), end="")
        case "srt":
            print(timeline.as_srt(lines, summary), end="")
        case "vtt":
            print(timeline.as_vtt(lines, summary), end="")


def _embed(given: argparse.Namespace) -> None:
    import numpy as np

    from musilingo_jax.runtime.paths import check_writable_file
    from musilingo_jax.runtime.storage import atomic, writing

    out = Path(given.out)
    check_writable_file(out, flag="--out")
    if out.exists() and out.samefile(given.song):
        raise UserError(f"--out={out} is the song itself: name another file")
    model = _load(given, rows=1)
    features = model.embed(given.song)
    with (
        writing(out, again="give another --out"),
        atomic(out) as partial,
        partial.open("wb") as file,  # `np.save` would add .npy to the name.
    ):
        np.save(file, features)
    windows, width = features.shape
    if given.json:
        row = {"song": given.song, "out": str(out), "windows": windows, "width": width}
        print(json.dumps(row, ensure_ascii=False))
    else:
        length = model.listener.window_seconds
        print(f"{out}: {windows} windows of {length:.2f} s, width {width}")


if __name__ == "__main__":
    main()
