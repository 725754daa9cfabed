"""Rendered sound: soundfonts, augmentation, and a corpus of files.

The soundfont player is replaced by one of sines, except where its own errors matter.
"""

import json
import sys

import numpy as np
import pytest
from helpers import sine_soundfont

from musilingo_jax.corpora import songs
from musilingo_jax.corpora.styles import ATTRIBUTES
from musilingo_jax.corpora.synthetic import DRUMS, LEAD, compose
from musilingo_jax.evaluation.metrics.naming import named_value
from musilingo_jax.recipes import augmentation, render, soundfont
from musilingo_jax.runtime.errors import UserError

PLAIN = {
    "sample_rate": 24_000,
    "drum_tuning": 0.0,
    "drum_kit": soundfont.STANDARD_KIT,
    "colour": lambda part: part,
}


@pytest.fixture
def font(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tinysoundfont", sine_soundfont.stand_in())
    yield sine_soundfont.write(tmp_path / "font.sf2", partials=1)
    soundfont._soundfont.cache_clear()


def piece_with(**wanted):
    for seed in range(1000):
        piece = compose(np.random.default_rng([9, seed]), duration=2.0)
        if all(getattr(piece, name) == value for name, value in wanted.items()):
            return piece
    raise AssertionError("none of 1000 pieces is that")


def test_the_sounding_notes_are_those_of_the_score(font):
    piece = piece_with(drums=False)
    fonts = dict.fromkeys(soundfont.CHANNELS, font)
    waveform = soundfont.render(piece, fonts, **PLAIN)
    assert waveform.dtype == np.float32 and waveform.shape == (48_000,)
    assert np.sqrt(np.mean(waveform**2)) > 0.05 and np.abs(waveform).max() <= 0.9
    # The strongest partial while a long note of the lead sounds is the lead's.
    notes = piece.notes[piece.notes["channel"] == LEAD]
    note = notes[np.argmax(notes["end"] - np.maximum(notes["start"], 0))]
    start, end = (round(24_000 * max(note[key], 0)) for key in ("start", "end"))
    heard = waveform[start:end] * np.hanning(end - start)
    spectrum = np.abs(np.fft.rfft(heard, 1 << 18))
    strongest = np.argmax(spectrum) * 24_000 / (1 << 18)
    written = 440 * 2 ** ((note["pitch"] + piece.cents / 100 - 69) / 12)
    assert strongest == pytest.approx(written, rel=0.02)


def test_drums_follow_their_own_tuning(font):
    piece = piece_with(drums=True)
    fonts = dict.fromkeys(soundfont.CHANNELS, font)
    played = {}

    def keep(part, *, name):
        played.setdefault(name, []).append(part)
        return part

    for name, tuning in (("as written", 0.0), ("higher", 2.0)):
        kept = {"colour": lambda part, name=name: keep(part, name=name)}
        soundfont.render(piece, fonts, **PLAIN | {"drum_tuning": tuning} | kept)
    changed = [
        not np.array_equal(one, other)
        for one, other in zip(*played.values(), strict=True)
    ]
    channels = [c for c in soundfont.CHANNELS if np.any(piece.notes["channel"] == c)]
    assert changed == [channel == DRUMS for channel in channels]


def test_an_augmented_clip_has_a_soundfont_for_each_part(font, tmp_path, monkeypatch):
    other = sine_soundfont.write(tmp_path / "other.sf2", partials=3)
    used = []
    original = soundfont._soundfont

    def spy(path, sample_rate):
        used.append(path)
        return original(path, sample_rate)

    spy.cache_clear = original.cache_clear
    monkeypatch.setattr(soundfont, "_soundfont", spy)
    arguments = dict(seed=3, soundfonts=[str(font), str(other)], duration=1.0)
    plain = [render.clip(index=n, augmented=False, **arguments) for n in range(6)]
    parts = [len(np.unique(piece.notes["channel"])) for piece, _, _ in plain]
    paths = iter(used)
    per_clip = [[next(paths) for _ in range(count)] for count in parts]
    assert all(len(set(clip)) == 1 for clip in per_clip)
    assert {clip[0] for clip in per_clip} == {str(font), str(other)}
    for (_, _, place), clip in zip(plain, per_clip, strict=True):
        assert clip[0] == arguments["soundfonts"][place]
    used.clear()
    augmented = [render.clip(index=n, augmented=True, **arguments) for n in range(6)]
    paths = iter(used)
    per_clip = [[next(paths) for _ in range(count)] for count in parts]
    assert any(len(set(clip)) == 2 for clip in per_clip)
    for (piece, waveform, place), clip, (same, clean, _) in zip(
        augmented, per_clip, plain, strict=True
    ):
        # The lead is played first, and its soundfont is the clip's label.
        assert clip[0] == arguments["soundfonts"][place]
        np.testing.assert_array_equal(piece.notes, same.notes)
        assert waveform.shape == clean.shape and not np.allclose(waveform, clean)


def test_augmentation_shifts_nothing_and_stays_in_range():
    waveform = np.zeros(render.SAMPLE_RATE, np.float32)
    waveform[5000] = 0.9
    for seed in range(20):
        sound = augmentation.augment(waveform, np.random.default_rng(seed))
        assert sound.dtype == np.float32 and sound.shape == waveform.shape
        assert np.abs(sound).max() <= 1
        assert abs(int(np.argmax(np.abs(sound))) - 5000) <= 2
    one, two = (
        augmentation.augment(waveform, np.random.default_rng(1)) for _ in range(2)
    )
    np.testing.assert_array_equal(one, two)


def test_a_missing_soundfont_is_named(tmp_path):
    pytest.importorskip("tinysoundfont")
    check_errors(tmp_path)


def test_the_stand_in_fails_as_the_player_does(font, tmp_path):
    check_errors(tmp_path)


def check_errors(folder):
    def play(name):
        fonts = dict.fromkeys(soundfont.CHANNELS, folder / name)
        soundfont.render(piece_with(), fonts, **PLAIN)

    with pytest.raises(UserError, match="nowhere.sf2"):
        play("nowhere.sf2")
    (folder / "text.sf2").write_text("not a soundfont")
    with pytest.raises(UserError, match="text.sf2"):
        play("text.sf2")


def test_a_missing_player_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)
    fonts = dict.fromkeys(soundfont.CHANNELS, tmp_path / "font.sf2")
    with pytest.raises(UserError, match="pip install --no-deps tinysoundfont=="):
        soundfont.render(piece_with(), fonts, **PLAIN)


def test_a_written_corpus_is_read_back(tmp_path, monkeypatch):
    def noise(piece, soundfonts, *, sample_rate, **others):
        rng = np.random.default_rng(int(piece.bpm * 1000))
        samples = round(piece.duration * sample_rate)
        return (0.1 * rng.standard_normal(samples)).astype(np.float32)

    monkeypatch.setattr(render, "render", noise)
    arguments = dict(clips=5, seed=7, soundfonts=["font"], duration=1.0, test_share=0.4)
    for name in ("one", "two"):
        render.write_corpus(tmp_path / name, **arguments)
    one, two = (tmp_path / name / "songs.jsonl" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    rows = [json.loads(line) for line in one.read_text().splitlines()]
    assert [row["audio"] for row in rows[:: len(rows) // 5]] == [
        f"clips/{index:05d}.ogg" for index in range(5)
    ]
    tests = {row["audio"] for row in rows if row["split"] == "test"}
    assert tests == {"clips/00002.ogg", "clips/00004.ogg"}
    records = songs.load(one)
    assert len(records) == len(rows) == 5 * (2 + len(ATTRIBUTES) + 2)
    assert {record.attribute for record in records} == {None, *ATTRIBUTES}
    for record in records:
        assert record.audio.is_file() and record.answer
        if record.attribute:
            values = set(ATTRIBUTES[record.attribute])
            assert named_value(record.answer, values) == record.value
