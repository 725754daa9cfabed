"""What annotations are measured against: the harmony that a piece's notes say."""

import json
import struct
import sys

import numpy as np
import pytest
import soundfile
from helpers import sine_soundfont

from musilingo_jax.annotation.chords import Chord
from musilingo_jax.corpora.synthetic import compose
from musilingo_jax.recipes import annotation_errors, recordings
from musilingo_jax.runtime.errors import UsageError, UserError

pytestmark = pytest.mark.medium


def pieces(count):
    for index in range(count):
        yield compose(np.random.default_rng([3, index]), duration=16.0)


def test_true_triads_are_those_of_the_key():
    """Each is on a degree of the scale that progressions use, and changes on beats."""
    heard = 0.0
    for piece in pieces(40):
        steps = {"major": (0, 2, 5, 7, 9), "minor": (0, 2, 5, 7, 8)}[piece.mode]
        for chord in annotation_errors.true_triads(piece):
            root = annotation_errors.NOTES.index(chord.name.split()[0])
            assert (root - piece.tonic) % 12 in steps, (piece.key, chord)
            assert 0 <= chord.start < chord.end <= piece.duration
            offset = (chord.start - piece.beats[0]) * piece.bpm / 60
            assert chord.start == 0 or abs(offset - round(offset)) < 1e-6
            heard += chord.end - chord.start
    assert heard > 0.6 * 40 * 16


def test_the_tonic_chord_has_the_mode_of_the_key():
    for piece in pieces(20):
        tonic = annotation_errors.NOTES[piece.tonic]
        for chord in annotation_errors.true_triads(piece):
            if chord.name.split()[0] == tonic:
                assert chord.name == f"{tonic} {piece.mode}"


def test_overlap_is_a_share_of_the_true_time():
    true = [Chord(0, 2, "C major", 1), Chord(2, 4, "G major", 1)]
    found = [Chord(0, 1, "C major", 1), Chord(1, 4, "G major", 1)]
    assert annotation_errors.overlap(true, found) == 0.75
    assert annotation_errors.overlap(true, []) == 0


def test_the_table_has_every_estimator(tmp_path, monkeypatch, capsys):
    stand_in = sine_soundfont.stand_in()
    monkeypatch.setitem(sys.modules, "tinysoundfont", stand_in)
    font = sine_soundfont.write(tmp_path / "four.sf2", 4)
    words = ["--clips=3", "--seed=2", "--seconds=10", f"--soundfont={font}"]
    annotation_errors.main(annotation_errors.parser().parse_args(words))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["measure", "ours", "librosa", "a", "constant"]
    named = {line[:18].strip() for line in lines[1:]}
    assert named >= {"key", "tempo, Acc1", "beats", "downbeats", "metre", "chords"}


def chart_of(folder, *, bpm, song):
    """A package of one song with a chart."""
    (package,) = recordings.CHARTED
    place = folder / package.name
    for kind in ("music", "charts"):
        (place / kind).mkdir(parents=True)
    (place / "complete").write_text("1 songs\n")
    soundfile.write(place / "music/one__song.wav", song, 24_000)
    micros = round(60e6 / bpm).to_bytes(3, "big")
    track = b"\x00\xff\x51\x03" + micros + b"\x87\x40\xff\x2f\x00"
    header = struct.pack(">4sIHHh", b"MThd", 6, 0, 1, 480)
    chart = header + struct.pack(">4sI", b"MTrk", len(track)) + track
    (place / "charts/one__notes.mid").write_bytes(chart)


def test_tempi_are_measured_against_charts(tmp_path, capsys):
    """Clicks at 100 beats per minute, and copies at 85, 70 and 55."""
    song = np.zeros(24_000 * 30)
    song[:: round(0.6 * 24_000)] = 0.9
    chart_of(tmp_path, bpm=100, song=song)
    words = [f"--charts={tmp_path}", "--seconds=14", "--json"]
    annotation_errors.main(annotation_errors.parser().parse_args(words))
    found = json.loads(capsys.readouterr().out)
    assert found["clips"] == 4
    scores = {(row["measure"], row["of"]): row["score"] for row in found["scores"]}
    assert scores["tempo, Acc2", "ours"] == 1.0
    assert scores["tempo, Acc1", "a constant"] == 0.25


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--clips=3", "--seed=2"], "--soundfont is for --clips, which needs it"),
        (["--charts=x", "--seed=2"], "--seed is for --clips, which needs it"),
    ],
)
def test_flags_that_do_not_go_together(words, says):
    given = annotation_errors.parser().parse_args([*words, "--seconds=10"])
    with pytest.raises(UsageError, match=says):
        annotation_errors.main(given)


def test_packages_without_songs_are_named(tmp_path):
    with pytest.raises(UserError, match="is not complete: `make music` downloads"):
        recordings.charts(tmp_path)
