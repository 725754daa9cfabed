"""Each estimator alone: on numbers, and on a song whose answers are known."""

import itertools
from itertools import pairwise

import numpy as np
import pytest
from helpers import four_chords

from musilingo_jax.annotation import bars, beats, chords, keys, loudness, sections, song
from musilingo_jax.annotation.spectra import RATE, Spectra
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def spectra():
    return Spectra(four_chords.song())


def test_the_beats_of_a_song(spectra):
    found = beats.find(spectra)
    assert abs(found.bpm - 120) < 0.5 and found.steadiness > 0.9
    offsets = found.times * 2 - np.round(found.times * 2)
    assert np.abs(offsets).max() < 0.1


def test_the_bars_of_a_song(spectra):
    found = bars.find(spectra, beats.find(spectra).times)
    assert found.metre == 4 and found.margin > 0
    offsets = found.downbeats / 2 - np.round(found.downbeats / 2)
    assert np.abs(offsets).max() < 0.05
    waltz = Spectra(four_chords.song(beats=3))
    assert bars.find(waltz, beats.find(waltz).times).metre == 3


def test_the_harmony_of_a_song(spectra):
    assert keys.find(spectra).name == "C major"
    found = chords.find(spectra, beats.find(spectra).times)
    assert found[0].start == 0 and found[-1].end == spectra.seconds
    assert all(a.end == b.start for a, b in pairwise(found))
    names = list(four_chords.CHORDS) * 3
    for bar, name in enumerate(names):
        middle = 2 * bar + 1
        (now,) = (c.name for c in found if c.start <= middle < c.end)
        assert now == name


def test_all_fields_have_their_source(spectra):
    found = song.annotate(spectra.waveform, song.FIELDS)
    assert tuple(found) == song.FIELDS
    for field, about in found.items():
        assert about["source"].startswith("musilingo_jax.annotation."), field
        assert about["version"].startswith("1, librosa "), field
    assert found["key"]["value"] == "C major" and 0 < found["key"]["strength"] <= 1
    assert found["tempo"]["value"] == pytest.approx(120, abs=0.5)
    assert tuple(song.annotate(spectra.waveform, ["key"])) == ("key",)


def test_silence_has_no_tempo_key_or_chord():
    found = song.annotate(np.zeros(4 * RATE, np.float32), song.FIELDS)
    for field in ("tempo", "metre", "key"):
        assert found[field]["value"] is None
    assert found["beats"]["value"] == found["downbeats"]["value"] == []
    assert [c["chord"] for c in found["chords"]["value"]] == ["no chord"]
    assert found["loudness"]["value"]["lufs"] == -70


def test_what_is_too_short_is_refused():
    with pytest.raises(
        UserError, match="lasts 1.5 s, and what is annotated must last 2"
    ):
        Spectra(np.zeros(RATE * 3 // 2, np.float32))


def test_the_tempo_of_beats_that_are_missing_or_displaced():
    times = np.arange(40) * 0.5
    assert beats.slope(times) == (pytest.approx(120), 1.0)
    displaced = times.copy()
    displaced[[3, 20]] += 0.2
    bpm, steadiness = beats.slope(displaced)
    assert bpm == pytest.approx(120) and steadiness == 38 / 40
    assert beats.slope(np.delete(times, [7, 19]))[0] == pytest.approx(120)
    slower = np.concatenate([times, times[-1] + np.arange(1, 40) * 0.7])
    assert beats.slope(slower)[1] < 0.7


@pytest.mark.parametrize("tonic", range(12))
def test_a_profile_has_its_own_key(tonic):
    for mode in (0, 1):
        found = keys.of(keys.PROFILES[12 * mode + tonic])
        assert found.name == keys.NAMES[12 * mode + tonic]
        assert found.strength == pytest.approx(1) and found.margin > 0
    assert keys.of(np.zeros(12)).name == keys.of(np.ones(12)).name == ""


def test_a_triad_is_most_like_itself():
    sounds = np.zeros((25, 12))
    for number, name in enumerate(chords.NAMES[:-1]):
        root = number % 12
        third = 4 if name.endswith("major") else 3
        sounds[number, [root, (root + third) % 12, (root + 7) % 12]] = 1
    found = chords.likenesses(sounds)
    assert found[:24].argmax(axis=1).tolist() == list(range(24))
    assert found[24].argmax() == 24  # Silence.


def test_the_likeliest_path_is_the_best_of_all():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(6, 3))
    for change in (0.0, 0.4, 5.0):

        def total(path, change=change):
            changes = sum(a != b for a, b in pairwise(path))
            return scores[np.arange(6), list(path)].sum() - change * changes

        best = max(itertools.product(range(3), repeat=6), key=total)
        assert tuple(chords.likeliest(scores, change)) == best


def test_beats_that_stand_out_are_where_bars_begin():
    cues = np.tile([1.0, 0, 0, 0], 6)
    scores = {
        (metre, phase): bars.contrast(cues, metre, phase)
        for metre in bars.METRES
        for phase in range(metre)
    }
    assert max(scores, key=lambda pair: scores[pair]) == (4, 0)
    assert bars.contrast(np.ones(12), 3, 1) == 0


@pytest.mark.parametrize("rate", [22_050, 48_000])
def test_loudness_is_that_of_the_standard(rate):
    """A full-scale sine of 997 Hz has −3.01 LUFS (BS.1770-4, annex 1)."""
    time = np.arange(5 * rate) / rate
    sine = np.sin(2 * np.pi * 997 * time)
    found = loudness.measure(sine, rate)
    assert found.lufs == pytest.approx(-3.01, abs=0.05)
    assert found.peak_db == pytest.approx(0, abs=0.05)
    assert found.range == pytest.approx(0, abs=0.05)
    quiet = loudness.measure(0.1 * sine, rate)
    assert quiet.lufs == pytest.approx(found.lufs - 20, abs=0.01)
    # Silence does not count, nor what is 10 LU below the rest.
    half = np.concatenate([sine, np.zeros(len(sine)), 0.05 * sine])
    assert loudness.measure(half, rate).lufs == pytest.approx(found.lufs, abs=0.2)


def test_sections_are_where_the_sound_changes():
    rng = np.random.default_rng(0)
    blocks = [np.array([3.0, 0]), np.array([-3.0, 1]), np.array([3.0, 0])]
    lengths = (20, 15, 12)
    features = np.concatenate(
        [
            block + rng.normal(0, 0.3, (n, 2))
            for block, n in zip(blocks, lengths, strict=True)
        ]
    )
    features -= features.mean(axis=0)
    found = sections.borders(features)
    assert len(found) == 2
    assert abs(found[0] - 20) <= 1 and abs(found[1] - 35) <= 1
    assert sections.borders(features[:10]) == []
