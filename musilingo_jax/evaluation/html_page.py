"""The report as one HTML page: the tables, pictures, and the worst answers to hear."""

import base64
import html
import os
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from musilingo_jax.evaluation import figures
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.scoring import OWN, Scored
from musilingo_jax.runtime.storage import write_text

# Answers shown per score, the worst first.
_WORST = 10
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; margin: 2rem auto;
  max-width: 70rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #d9dee3; text-align: right; }
th:first-child, td:first-child { text-align: left; }
td.text { text-align: left; vertical-align: top; max-width: 22rem;
  overflow-wrap: anywhere; }
figure { margin: 1.5rem 0; } img { max-width: 100%; } audio { width: 14rem; }
figcaption, .small { color: #52606d; }
"""


def write(path: Path, text: str, scored: Scored) -> None:
    """Writes the page; nothing in it is fetched but the songs, by their paths.

    Args:
      path: of the page. Songs are linked relative to it.
      text: the report in Markdown, as `report.markdown` writes it.
      scored: what to draw, and whose worst answers to show.
    """
    title = text.partition("\n")[0].removeprefix("# ")
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        *_from_markdown(text.split("\n")),
        "<h2>Pictures</h2>",
        *_pictures(scored),
        *_worst(scored, path.parent),
        "</body></html>",
    ]
    write_text(path, "\n".join(parts) + "\n")


def _pictures(scored: Scored) -> Iterator[str]:
    for caption, png in figures.draw(scored):
        data = base64.b64encode(png).decode()
        yield (
            f'<figure><img alt="{html.escape(caption)}" '
            f'src="data:image/png;base64,{data}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )


def _worst(scored: Scored, folder: Path) -> Iterator[str]:
    """The worst answers: one table per fact, and one for the wording of captions."""
    for line in scored.lines:
        name = f"{line.section}.{line.name}"
        if line.section not in ("factual", "kind") or name not in scored.scores[OWN]:
            continue
        values = scored.scores[OWN][name]
        # Of attributes, facts say more than wording.
        facts_too = f"factual.{line.name}" in scored.scores[OWN]
        if line.section == "kind" and facts_too:
            continue
        bad = [p for p in np.argsort(values, kind="stable") if values[p] < 1][:_WORST]
        if not bad:
            continue
        yield f"<h2>Worst answers: {html.escape(line.name)}</h2><div class=wide><table>"
        yield "<tr><th>clip<th>question<th>should be<th>was<th>score</tr>"
        for place in bad:
            row = scored.rows[place]
            texts = (row.question, row.reference, row.answer)
            cells = "".join(f'<td class="text">{_short(text)}' for text in texts)
            heard = _player(row, folder)
            yield (
                f'<tr><td class="text">{heard}{cells}<td>{100 * values[place]:.1f}</tr>'
            )
        yield "</table></div>"


def _player(row: AnsweredQuestion, folder: Path) -> str:
    """A player for the clip where its file is known, with the clip's name."""
    if row.record is None:
        return _short(row.clip)
    audio = row.record.audio
    link = urllib.parse.quote(Path(os.path.relpath(audio, folder)).as_posix())
    times = (row.record.start, row.record.end)
    if any(time is not None for time in times):
        # A media fragment: the player begins and ends there.
        link += "#t=" + ",".join("" if t is None else f"{t:g}" for t in times)
    return (
        f'<audio controls preload="none" src="{html.escape(link)}"></audio>'
        f'<div class="small">{_short(audio.name)}</div>'
    )


def _short(text: str) -> str:
    return html.escape(text if len(text) <= 500 else text[:499] + "…")


def _from_markdown(lines: Sequence[str]) -> Iterator[str]:
    """The Markdown that reports are written in: headings, tables, lists, paragraphs."""
    open_list = rows = 0
    for line in [*lines, ""]:
        if open_list and not line.startswith("- "):
            yield "</ul>"
            open_list = 0
        if rows and not line.startswith("| "):
            yield "</table></div>"
            rows = 0
        if found := re.match(r"(#+) (.*)", line):
            yield f"<h{len(found[1])}>{_inline(found[2])}</h{len(found[1])}>"
        elif line.startswith("- "):
            yield ("" if open_list else "<ul>") + f"<li>{_inline(line[2:])}</li>"
            open_list += 1
        elif line.startswith("| "):
            cells = re.split(r"(?<!\\) \| ", line.removeprefix("| ").removesuffix(" |"))
            if rows != 1:  # The second line is only rules.
                tag = "td" if rows else "th"
                text = "".join(f"<{tag}>{_inline(cell)}</{tag}>" for cell in cells)
                yield ("" if rows else "<div class=wide><table>") + f"<tr>{text}</tr>"
            rows += 1
        elif line:
            yield f"<p>{_inline(line)}</p>"


def _inline(text: str) -> str:
    text = html.escape(text.replace("\\|", "|"), quote=False)
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
