"""A conversation as a file to keep."""

import tempfile
import time
from pathlib import Path

from musilingo_jax.answering.excerpt import clock
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.web.session import Session
from musilingo_jax.web.waveform import spans

_ENDS = {"cut": " … (cut)", "stopped": " … (stopped)"}


def text(session: Session) -> str:
    """A conversation in Markdown: its songs, what was heard of them, and its turns.

    Raises:
      UserError: nothing was asked yet.
    """
    if not session.turns:
        raise UserError("there is nothing to export yet: ask something")
    lines = [f"# Questions about music, answered by {session.model_name}", ""]
    for number, song in enumerate(session.songs, 1):
        lines.append(
            f"{number}. {song.name} ({clock(song.excerpt.seconds)}; heard: "
            f"{spans(song.heard)})"
        )
    for turn in session.turns:
        answer = turn.answer + _ENDS.get(turn.state, "")
        lines += ["", f"**{turn.question}**", "", answer]
    return "\n".join(lines) + "\n"


def write(session: Session, folder: Path) -> Path:
    """Writes a conversation into a folder of its own within the page's.

    Raises:
      UserError: nothing was asked yet.
    """
    written = text(session)
    own = Path(tempfile.mkdtemp(dir=folder))
    path = own / time.strftime("music-%Y-%m-%d-%H%M.md")
    path.write_text(written, encoding="utf-8")
    return path
