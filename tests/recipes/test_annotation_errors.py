"""What annotations are measured against: the harmony that a piece's notes say."""

import sys

import numpy as np
import pytest
from helpers import sine_soundfont

from musilingo_jax.annotation.chords import Chord
from musilingo_jax.corpora.synthetic import compose
from musilingo_jax.recipes import annotation_errors

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
