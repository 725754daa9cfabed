"""Makes text that others have written safe to print on a terminal."""

import io
import re
import sys

# Control characters, which include escape sequences, but for line ends and tabs; marks
# that reverse the text after them; halves of surrogate pairs, which no encoding has.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

# What Markdown may read as markup in a name. An underscore within a word is none.
_MARKUP = re.compile(r"[\\`*\[\]<>#|&~]|(?<![^\W_])_|_(?![^\W_])")


def printable(text: str) -> str:
    r"""The text with unsafe characters as `\x1b` or `\udcff`, as `ls` and git do.

    Names of files, tensors and clips come from downloads. Line ends and tabs are kept.
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    r"""Printable text in which line ends and tabs are `\n` and `\t`, too.

    For names within a message: one with a line end could look like another message.
    """
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")


def escape(text: str) -> str:
    r"""Markdown that shows a text as it is, in one line: `a*b*` → `a\*b\*`.

    Names of attributes and of files may hold any characters; those that are unsafe on
    a terminal are shown as in `printable`.
    """
    text = printable(" ".join(text.split()))
    return _MARKUP.sub(lambda found: "\\" + found[0], text)


def print_note(text: str) -> None:
    """Prints a line on stderr, made printable."""
    print(printable(text), file=sys.stderr, flush=True)


def print_question(text: str) -> None:
    """Prints a question on stderr, made printable; the answer follows on the line."""
    print(printable(text), end=" ", file=sys.stderr, flush=True)


class PrintableOutput(io.TextIOWrapper):
    """A text stream that makes everything printable."""

    def write(self, text: str, /) -> int:
        """Writes the text; returns its length as given."""
        super().write(printable(text))
        return len(text)


def protect_output() -> None:
    r"""Makes whatever this process prints printable from now on.

    What the encoding of a stream lacks is written as `\u266a` and raises no error. Only
    the standard output is searched for control characters: on stderr, progress bars use
    them. What else goes there goes through `print_note`.
    """
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        # What is no text is refused where it is used, and not while it is read.
        sys.stdin.reconfigure(errors="surrogateescape")
    before = sys.stdout
    if type(before) is not io.TextIOWrapper:
        return  # A test, or another program, has a stream of its own.
    options = {
        "encoding": before.encoding,
        "line_buffering": before.line_buffering,
        "write_through": before.write_through,
    }
    sys.stdout = sys.__stdout__ = PrintableOutput(
        before.detach(), errors="backslashreplace", **options
    )
