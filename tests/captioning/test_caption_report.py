"""The report: what is counted, listed and drawn."""

import json

from etils import epath
from helpers.captioned_songs import row

from musilingo_jax.captioning import report
from musilingo_jax.captioning.captioned import LeftOut, Song
from musilingo_jax.evaluation import html_page


def songs(tmp_path, count=3):
    rows = [
        row("a.wav", bpm=99.9),
        row("b.wav", bpm=100.0, genre="rock", key="F# minor", outcome="regenerated",
            faults=["key", "key", "tempo"]),
        row("c|d.wav", caption=None, outcome="dropped", genre=None, bpm=None, key=None,
            faults=["vocals"]),
    ]  # fmt: skip
    rows += [row(f"{number}.wav") for number in range(count - 3)]
    return [Song(each, tmp_path / each["audio"], None) for each in rows]


def write(tmp_path, made, seed=0):
    failed = {"x": "x.wav: the file is empty"}
    left_out = [LeftOut("ace-step", "c|d.wav", "has no caption")]
    report.write(made, failed, left_out, epath.Path(tmp_path), seed=seed)
    return json.loads((tmp_path / "report.json").read_text())


def test_numbers(tmp_path):
    found = write(tmp_path, songs(tmp_path))
    assert (found["songs"], found["drawn_again"]) == (3, 3)
    assert found["hours"] == round(3 * 2.5 / 3600, 3)
    assert found["captions"] == {
        "kept": 1,
        "regenerated": 1,
        "shortened": 0,
        "dropped": 1,
    }
    # A song counts once for each reason.
    reasons = {name: count for name, count in found["reasons"].items() if count}
    assert reasons == {"tempo": 1, "key": 1, "vocals": 1}
    assert found["bpm"] == {"90 to 100": 1, "100 to 110": 1}
    assert found["genre"] == {"(unknown)": 1, "jazz": 1, "rock": 1}
    assert found["instruments"] == {"flute": 3, "piano": 3}
    assert found["tags"] == {"(unknown)": 3}
    assert found["sources"]["bpm"] == {"model: tiny 1": 3}
    assert found["failed"] == ["x.wav: the file is empty"]
    assert found["left_out"][0]["audio"] == "c|d.wav"
    assert (tmp_path / "distributions.png").read_bytes().startswith(b"\x89PNG")


def test_every_fault_is_listed(tmp_path):
    write(tmp_path, songs(tmp_path))
    lines = (tmp_path / "faults.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    listed = [(each["audio"], each["outcome"], each["reason"]) for each in found]
    assert listed == [
        ("b.wav", "regenerated", "key"),
        ("b.wav", "regenerated", "key"),
        ("b.wav", "regenerated", "tempo"),
        ("c|d.wav", "dropped", "vocals"),
    ]
    assert found[0]["sentence"] == "S." and found[0]["known"] == "y"


def test_the_page_is_a_page(tmp_path):
    write(tmp_path, songs(tmp_path))
    text = (tmp_path / "report.md").read_text()
    assert "3 songs, 0.00 hours; 1 could not be read." in text
    assert "- x.wav: the file is empty" in text
    assert r"| ace-step | c\|d.wav | has no caption |" in text
    page = html_page.from_markdown(text)
    assert "<td>c|d.wav</td>" in page and "<td>A calm | piece.</td>" in page


def test_a_sample_follows_from_the_seed(tmp_path):
    made = songs(tmp_path, count=200)

    def sample(seed):
        text = report.markdown(report.summary(made, {}, []), made, seed)
        return text.partition(f"## A sample, seed {seed}")[2].splitlines()[4:]

    one = sample(1)
    assert len(one) == report.SAMPLE and len(set(one)) == report.SAMPLE
    assert sample(1) == one and sample(2) != one


def test_nothing_is_a_report_too(tmp_path):
    found = write(tmp_path, [])
    assert found["songs"] == 0 and found["bpm"] == {}
