"""Reports: text, pictures, players, and what keeps names from becoming markup."""

import base64
import dataclasses
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from musilingo_jax.corpora.records import Record
from musilingo_jax.evaluation import (
    controls,
    figures,
    html_page,
    report,
    report_files,
    scoring,
)
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.estimates import Estimate, Gain
from musilingo_jax.evaluation.metrics import facts
from musilingo_jax.evaluation.metrics.wording import WordingModels
from musilingo_jax.evaluation.report import About
from musilingo_jax.evaluation.scoring import Line
from musilingo_jax.runtime.printable import escape

pytestmark = pytest.mark.medium

ABOUT = About("A title | <here>", left_out=3, not_held_out=2, identity={}, config={})


def scored(songs: Path, answer=lambda value: value) -> scoring.Scored:
    """Keys and tempi of twelve clips, and an answer about each."""
    rows = []
    for i in range(12):
        audio = songs / f"a song #{i}.wav"
        for attribute, value in (
            ("key", ("C major", "A minor")[i % 2]),
            ("tempo", str(90 + 10 * i)),
        ):
            record = Record(
                audio, str(i), "?", f"It is {value}.", "test", attribute, value, 1.5, 9
            )
            rows.append(AnsweredQuestion.of(record, answer(value)))
    return score(
        rows,
        {
            "shuffled": controls.shuffled(rows, seed=0),
            "constant": controls.constant(rows, rows, seed=0),
        },
    )


def score(rows, given) -> scoring.Scored:
    absent = dict.fromkeys(
        ("legacy.meteor", "honest.meteor", "legacy.bertscore", "honest.bertscore"),
        "it is not here",
    )
    return scoring.score(
        rows,
        given,
        facts.vocabulary((row.attribute, row.value) for row in rows),
        WordingModels(None, None, absent, {}),
        seed=0,
    )


def test_a_report_is_whole_and_its_songs_can_be_played(tmp_path):
    songs = tmp_path / "songs"
    found = scored(songs, answer=lambda value: "C major, <b>1</b>")
    report_files.write(tmp_path / "out/evaluation", ABOUT, found)
    folder = tmp_path / "out/evaluation"
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert 'src="../../songs/a%20song%20%231.wav#t=1.5,9"' in text
    assert "C major, &lt;b&gt;1&lt;/b&gt;" in text
    assert "A title | &lt;here&gt;" in text and "Not held out" in text
    # Nothing is fetched from elsewhere: pictures are in the page.
    assert not re.search(r'(src|href)="(https?:)?//', text)
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert all(base64.b64decode(p).startswith(b"\x89PNG") for p in pictures)
    assert text.count("<tr>") == text.count("</tr>")
    content = json.loads((folder / "report.json").read_text())
    key = next(line for line in content["scores"] if line["name"] == "key")
    # C major is right for half of the clips, and the relative key of the others.
    assert key["own"]["value"] == pytest.approx((1 + 0.3) / 2)
    assert "3 records of the split were left out" in (folder / "report.md").read_text()


def test_pictures_of_keys_and_tempi(tmp_path):
    captions = [picture.caption for picture in figures.draw(scored(tmp_path))]
    assert len(captions) == 4
    silent = scored(tmp_path, answer=lambda value: "")
    assert len(list(figures.draw(silent))) == 3  # No answer names a tempo.


def test_published_rows_stand_beside_ours_with_their_papers(tmp_path):
    text = report.markdown(ABOUT, scored(tmp_path))
    assert (
        "| MU-LLaMA | MusicQA | 30.6 | 38.5 | 46.6 | 90.1 | mu_llama | Liu et al."
        in text
    )
    lines = text.split("\n")
    ours = next(line for line in lines if line.startswith("| **this**"))
    begin = lines.index(ours) + 1
    cited = [line.split(" | ")[-1] for line in lines[begin : lines.index("", begin)]]
    assert len(cited) == 5 and all("et al. 20" in source for source in cited)
    assert ours.endswith("|  |  |")  # BERTScore and source; METEOR is empty too.
    assert "- **meteor** is not computed: it is not here\n" in text


def line(**more) -> Line:
    sure = Estimate(1.0, np.nextafter(1.0, 2), 1.0, None)
    gain = Gain(0.5, 0.4, 0.6, None, p_above=0.001, p_below=1.0)
    values = {
        "section": "factual",
        "name": "tempo",
        "rows": 9,
        "clips": 9,
        "own": sure,
        "reason": None,
        "controls": {"shuffled": sure, "constant": sure},
        "gains": {"shuffled": gain, "constant": gain},
        "unanswered": 0,
        "unscorable": 0,
    }
    return Line(**(values | more))


def test_interpretations():
    assert "above every control, by at least 40.0" in report.interpretation(line())
    unsure = Gain(0.5, None, None, "too few", p_above=1 / 16, p_below=1.0)
    few = line(clips=4, gains={"shuffled": unsure})
    assert "too few clips to tell (4)" in report.interpretation(few)
    assert not few.beats_controls
    chance = Gain(0.1, 0.05, 0.3, None, p_above=0.03, p_below=0.98)
    worse = Gain(-0.2, -0.3, -0.1, None, p_above=1.0, p_below=0.002)
    mixed = line(gains={"shuffled": chance, "constant": worse, "silence": None})
    sentence = report.interpretation(mixed)
    assert sentence.startswith(
        "**tempo** ✗: worse than constant answer; not significantly above shuffled"
    )
    assert not mixed.beats_controls
    silent = report.interpretation(line(unscorable=7))
    assert "7 references do not state their value clearly" in silent
    assert "mistaken" not in silent
    both = report.interpretation(line(unscorable=7, contradicted=7))
    assert "7 references state another value than their own `value`" in both
    assert "clearly" not in both
    alone = line(controls={"shuffled": None}, gains={"shuffled": None})
    assert "no control" in report.interpretation(alone)
    assert not alone.beats_controls


def drawn(figure) -> bytes:
    return figures.Picture.of("facts", "", figure).png


def test_intervals_of_bars_never_point_inwards():
    without = Estimate(0.5, None, None, "too few")
    controls_of = {"shuffled": without, "constant": None}
    lines = [line(), line(own=without, controls=controls_of)]
    assert drawn(figures._bars(lines)).startswith(b"\x89PNG")


def test_names_that_look_like_formulas_are_drawn_as_they_are():
    bars = figures._bars([line(name="a$x^{$")])
    assert drawn(bars).startswith(b"\x89PNG")


def test_pictures_of_very_many_scores_show_those_of_most_answers():
    lines = [line(name=f"a{i}", rows=10 * i) for i in range(600)]
    shown, note = figures._with_most_answers(lines, 24)
    assert [x.name for x in shown] == [f"a{i}" for i in range(576, 600)]
    assert note == " (the 24 with the most answers; 576 more are in the tables)"
    assert figures._with_most_answers(lines[:24], 24) == (lines[:24], "")


def test_a_report_of_many_attributes_says_what_its_pictures_leave_out():
    rows = [
        AnsweredQuestion(
            str(i), "?", "calm", "calm", f"attribute {i}", "calm", (), None, False
        )
        for i in range(30)
    ]
    found = score(rows, {"shuffled": ["calm"] * 30})
    bars, distributions = figures.draw(found)
    assert "24 with the most answers; 6 more" in bars.caption
    assert "16 with the most answers; 14 more" in distributions.caption
    width = int.from_bytes(bars.png[16:20])  # In the header of a PNG file.
    assert width < 5000


def test_markdown_becomes_html():
    text = "- b **c**\n- `d`\n\n| x | y |\n| --- | ---: |\n| 1 |  |\n"
    assert html_page.from_markdown(text).split("\n") == [
        "<ul>",
        "<li>b <b>c</b></li>",
        "<li><code>d</code></li>",
        "</ul>",
        '<div class="wide"><table>',
        "<thead>",
        "<tr>",
        "<th>x</th>",
        '<th style="text-align:right">y</th>',
        "</tr>",
        "</thead>",
        "<tbody>",
        "<tr>",
        "<td>1</td>",
        '<td style="text-align:right"></td>',
        "</tr>",
        "</tbody>",
        "</table></div>",
        "",
    ]


NASTY = (
    "<script>alert(1)</script>",
    "[a](http://evil)",
    "![a](http://evil/i.png)",
    "<http://evil>",
    "http://evil",
    "[a]: http://evil",
    "**a** *b* __c__ _d_ `e` ~~f~~",
    "a | b \\| c \\",
    "# a #",
    "&lt;b&gt; &amp;",
    "***",
    "a  \n\n- b",
)


@pytest.mark.parametrize("name", NASTY)
def test_no_name_becomes_markup_or_a_link(name):
    """In a paragraph, a list and a cell: all is text, and the text is the name."""
    escaped = escape(name)
    table = "\n".join(report._row(cells) for cells in (["x"], ["---"], [escaped]))
    text = f"{escaped}\n\n- **{escaped}**: b\n\n{table}\n"
    page = html_page.from_markdown(text)
    shown = html.escape(" ".join(name.split()))
    assert f"<p>{shown}</p>" in page
    assert f"<li><b>{shown}</b>: b</li>" in page
    assert f"<td>{shown}</td>" in page
    # Even without the backslashes nothing becomes a link, a picture or raw HTML.
    bare = html_page.from_markdown(f"{name}\n\n| x |\n| --- |\n| {name} |\n")
    assert not re.search(r"<(a|img|script|http)\b", bare)


def test_names_questions_and_answers_are_text_in_the_page(tmp_path):
    rows = [
        AnsweredQuestion(str(i), f"{name}?", name, "wrong", name, name, (), None, False)
        for name in NASTY
        for i in range(6)
    ]
    found = score(rows, {"shuffled": [row.value for row in rows]})
    about = dataclasses.replace(ABOUT, title=" ".join(NASTY))
    page = html_page.page(about, found, tmp_path)
    tags = set(re.findall(r"<([a-z0-9]+)\b[^>]*>", page))
    assert tags <= {
        *("html", "head", "meta", "title", "style", "body", "header", "nav", "section"),
        *("h1", "h2", "p", "a", "ul", "li", "b", "code", "div", "table"),
        *("thead", "tbody", "tr", "th", "td", "details", "summary", "figure", "img"),
        *("figcaption",),
    }
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', page))
    sources = re.findall(r'src="([^"]*)"', page)
    assert sources and all(s.startswith("data:image/png;base64,") for s in sources)
    for name in NASTY:
        assert f'<td class="text">{html.escape(name)}</td>' in page
        assert f'<td class="text">{html.escape(name)}?</td>' in page
