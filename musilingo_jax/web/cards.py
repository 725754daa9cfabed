"""What the page shows besides Gradio's own components, as HTML."""

import html
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from musilingo_jax.answering.excerpt import clock
from musilingo_jax.web.session import Song
from musilingo_jax.web.waveform import picture, spans

STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")


def header(name: str, hears: float, most_tokens: int, song_seconds: float) -> str:
    """The model's name and limits.

    Args:
      name: of the model.
      hears: seconds of a song that it hears at once.
      most_tokens: of an answer.
      song_seconds: of a song that is taken.
    """
    return (
        '<div class="head"><h1>Ask about music</h1>'
        f"<p><strong>{html.escape(name)}</strong> hears up to {hears:.0f} s of a song "
        f"(of a longer one, parts that are spread over it), takes songs of up to "
        f"{song_seconds / 60:.0f} minutes, and writes up to {most_tokens} tokens. "
        "Its answers may be wrong. Songs are removed when you clear the conversation "
        "or close the page.</p></div>"
    )


def songs(known: Sequence[Song]) -> str:
    """The songs of a conversation: name, what was heard, waveform, player."""
    if not known:
        return (
            '<p class="empty">No song yet. Drop a file above, choose one, or record '
            "with the microphone.</p>"
        )
    return "".join(_card(number, song) for number, song in enumerate(known, 1))


def _card(number: int, song: Song) -> str:
    excerpt = song.excerpt
    name = html.escape(song.name)
    whole = len(song.heard) == 1 and song.heard[0][1] - song.heard[0][0] >= (
        excerpt.seconds - 0.5
    )
    heard = "all of it" if whole else spans(song.heard)
    notices = "".join(
        f'<p class="notice">{name} {html.escape(notice)}</p>'
        for notice in excerpt.notices
    )
    silent = (
        '<p class="notice">It is silent: expect no sensible answer.</p>'
        if excerpt.silent
        else ""
    )
    return (
        f'<article class="song" aria-label="Song {number}">'
        f'<p class="name"><span class="number">{number}</span> {name}'
        f'<span class="length">{clock(excerpt.seconds)}</span></p>'
        f"{picture(song.bars, song.heard, excerpt.seconds)}"
        f'<p class="heard">Heard: {heard}</p>{notices}{silent}'
        f'<audio controls preload="none" aria-label="Play {name}" '
        f'src="/gradio_api/file={quote(str(song.path))}"></audio></article>'
    )


def status(text: str, *, wrong: bool = False) -> str:
    """A line that screen readers say when it changes."""
    kind, role = ("wrong", "alert") if wrong else ("fine", "status")
    return f'<p class="line {kind}" role="{role}">{html.escape(text)}</p>'
