"""The report as one HTML page: text, pictures, and the worst answers to listen to."""

import base64
import html
import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from markdown_it import MarkdownIt

from musilingo_jax.evaluation import figures, report
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.figures import Picture
from musilingo_jax.evaluation.report import About, Section
from musilingo_jax.evaluation.score_table import OWN
from musilingo_jax.evaluation.scoring import Line, Scored
from musilingo_jax.runtime.palette import BLUE, INK, MUTED, RULE

# Answers shown per score.
_WORST = 10
# Letters shown of a text.
_MAX_LETTERS = 500
_COLOURS = (
    f":root {{ --ink: {INK}; --muted: {MUTED}; --rule: {RULE}; --blue: {BLUE}; }}"
)
_STYLE = """
body { font: 15px/1.55 system-ui, sans-serif; color: var(--ink); margin: 0 auto;
  max-width: 70rem; padding: 0 1.5rem 4rem; }
header { padding: 2.5rem 0 .5rem; border-bottom: 2px solid var(--ink); }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem;
  overflow-wrap: anywhere; }
header p { font-size: 1.05rem; max-width: 52rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .75rem; }
a { color: var(--blue); text-decoration: none; }
a:hover { text-decoration: underline; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; padding: .75rem 0; }
ul { padding-left: 1.1rem; } li { margin: .2rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .87rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--rule);
  text-align: left; vertical-align: top; white-space: nowrap; }
th { color: var(--muted); font-weight: 600; vertical-align: bottom;
  white-space: normal; text-wrap: balance; }
tbody tr:hover { background: #f4f7f9; }
td b { color: var(--blue); }
td.text { min-width: 9rem; max-width: 22rem; white-space: normal;
  overflow-wrap: anywhere; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-end; }
figure { margin: .5rem 0; max-width: 100%; } img { display: block; width: 100%; }
figcaption, .small { color: var(--muted); font-size: .87rem; }
audio { width: 14rem; height: 2.2rem; }
details { border-top: 1px solid var(--rule); padding: .5rem 0; }
summary { cursor: pointer; font-weight: 600; }
code { background: #f0f3f5; padding: 0 .25em; border-radius: 3px; }
"""


def page(about: About, scored: Scored, folder: Path) -> str:
    """The page. It loads nothing but the songs, by their paths.

    Args:
      about: what was evaluated.
      scored: its scores.
      folder: the folder of the page, which the songs are linked relative to.
    """
    summary, *sections = report.sections(about, scored)
    pictures = list(figures.draw(scored))
    worst = list(_worst_answers(scored, folder))
    title = html.escape(summary.title)
    links = [f'<a href="#{s.name}">{html.escape(s.title)}</a>' for s in sections]
    if worst:
        links.insert(-1, '<a href="#worst">Worst answers</a>')
        worst = [
            '<section id="worst"><h2>Worst answers</h2>',
            "<p>The lowest scores of each fact, and of each other kind of question."
            "</p>",
            *worst,
            "</section>",
        ]
    *results, guide = sections
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{title}</title><style>{_COLOURS}{_STYLE}</style></head><body>",
        f"<header><h1>{title}</h1>{from_markdown(summary.text)}</header>",
        f"<nav>{' '.join(links)}</nav>",
        *(_section(section, pictures) for section in results),
        *worst,
        _section(guide, pictures),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def from_markdown(text: str) -> str:
    """HTML of the Markdown that reports use: tables, lists, strong text and code.

    All else stays text. In particular, there is no rule that makes a link, a picture or
    raw HTML, whatever the names of attributes and files contain.
    """
    return _MARKDOWN.render(text)


def _markdown_parser() -> MarkdownIt:
    rules = ["table", "list", "emphasis", "backticks", "escape"]
    parser = MarkdownIt("zero").enable(rules)
    parser.add_render_rule("table_open", lambda *_: '<div class="wide"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    parser.add_render_rule("strong_open", lambda *_: "<b>")
    parser.add_render_rule("strong_close", lambda *_: "</b>")
    return parser


_MARKDOWN = _markdown_parser()


def _section(section: Section, pictures: list[Picture]) -> str:
    """A section: its first picture, its text, its other pictures."""
    shown = [_figure(p) for p in pictures if p.section == section.name]
    return "\n".join(
        [
            f'<section id="{section.name}"><h2>{html.escape(section.title)}</h2>',
            *shown[:1],
            from_markdown(section.text),
            '<div class="pictures">',
            *shown[1:],
            "</div>",
            "</section>",
        ]
    )


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    caption = html.escape(picture.caption)
    return (
        f'<figure style="width: {picture.width:.1f}in"><img alt="{caption}" '
        f'src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _worst_answers(scored: Scored, folder: Path) -> Iterator[str]:
    """A table for each fact, and one for the wording of each kind without facts."""
    scores = scored.scores[OWN]
    is_first = True
    for line in scored.lines:
        name = f"{line.section}.{line.name}"
        if line.section not in ("factual", "kind") or name not in scores:
            continue
        # For attributes, the facts are more telling than the wording.
        if line.section == "kind" and f"factual.{line.name}" in scores:
            continue
        values = scores[name]
        order = np.argsort(values, kind="stable").tolist()
        bad = [place for place in order if values[place] < 1][:_WORST]
        if bad:
            rows = [
                _answer(scored.rows[place], float(values[place]), folder)
                for place in bad
            ]
            yield _answers(line, rows, is_open=is_first)
            is_first = False


def _answers(line: Line, rows: list[str], *, is_open: bool) -> str:
    """A table of answers that opens and closes."""
    head = "<tr><th>clip</th><th>question</th><th>reference</th><th>answer</th>"
    return "\n".join(
        [
            f"<details{' open' if is_open else ''}>",
            f"<summary>{html.escape(line.name)}</summary>",
            '<div class="wide"><table>',
            f"{head}<th>score</th></tr>",
            *rows,
            "</table></div></details>",
        ]
    )


def _answer(row: AnsweredQuestion, score: float, folder: Path) -> str:
    texts = (row.question, row.reference, row.answer)
    cells = [_player(row, folder), *map(_short, texts)]
    joined = "".join(f'<td class="text">{cell}</td>' for cell in cells)
    return f"<tr>{joined}<td>{100 * score:.1f}</td></tr>"


def _player(row: AnsweredQuestion, folder: Path) -> str:
    """The clip's name, and a player if its file is known."""
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
    shown = text if len(text) <= _MAX_LETTERS else text[: _MAX_LETTERS - 1] + "…"
    return html.escape(shown)
