"""The level of a recording: measured, brought to another, and without effect."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
from helpers.small_cache import FEATURES, IDENTITY, RATE, fill
from hypothesis import given, settings
from hypothesis import strategies as st

from musilingo_jax.audio import level
from musilingo_jax.audio.cache import description
from musilingo_jax.audio.cache.clips import Clip
from musilingo_jax.audio.features import encode
from musilingo_jax.audio.level import Meter, brought_to
from musilingo_jax.training import embedded

LEVELLED = replace(FEATURES, level=0.1)


def noise(seconds=1.3, amplitude=0.1, seed=0):
    shape = int(seconds * RATE)
    return np.random.default_rng(seed).normal(0, amplitude, shape).astype(np.float32)


def bring(waveform, to=0.1):
    """The waveform at a level, and what is told of it."""
    told = []
    blocks = brought_to(to, lambda tell: iter(np.array_split(waveform, 3)), told.append)
    return np.concatenate(list(blocks)), told


def test_a_meter_measures_what_it_passes_on():
    wave = noise()
    meter = Meter(np.array_split(wave, 4))
    np.testing.assert_array_equal(np.concatenate(list(meter)), wave)
    assert meter.samples == len(wave) and meter.peak == np.abs(wave).max()
    assert meter.level == pytest.approx(np.std(wave.astype(float)))
    assert meter.mean == pytest.approx(np.mean(wave.astype(float)))
    assert not meter.silent and Meter([]).silent and Meter([]).level == 0


@pytest.mark.parametrize("exponent", [-30, -4, -1, 1, 10])
def test_powers_of_two_change_no_bit(exponent):
    wave = noise()
    if exponent == -30:  # Below what a silent recording has.
        assert level.is_silent(wave * np.float32(2.0**exponent))
        return
    brought, _ = bring(wave)
    np.testing.assert_array_equal(bring(wave * np.float32(2.0**exponent))[0], brought)
    assert np.sqrt(np.mean(np.square(brought))) == pytest.approx(0.1, rel=1e-5)


@settings(max_examples=30)
@given(st.floats(0.05, 2.5))
def test_other_gains_change_the_last_bits(gain):
    wave = noise()
    np.testing.assert_allclose(
        bring(wave * np.float32(gain))[0], bring(wave)[0], rtol=1e-6, atol=1e-9
    )


def test_silence_stays_silence_and_level_0_is_as_recorded():
    for quiet in (np.zeros(RATE, np.float32), noise(amplitude=1e-5)):
        brought, told = bring(quiet)
        np.testing.assert_array_equal(brought, quiet)
        assert not told
    wave = noise(amplitude=3.0)
    np.testing.assert_array_equal(bring(wave, to=0.0)[0], wave)


def test_a_constant_is_taken_away():
    expected, _ = bring(noise(amplitude=0.01))
    brought, told = bring(noise(amplitude=0.01) + np.float32(0.5))
    np.testing.assert_allclose(brought, expected, atol=1e-5)
    assert not told
    brought, told = bring(np.full(RATE, 0.5, np.float32))
    np.testing.assert_array_equal(brought, 0)
    assert told == [
        "is silent but for a constant, or for a click: expect no sensible answer"
    ]


def test_much_amplification_is_told():
    assert bring(noise(amplitude=2e-3))[1] == []
    (told,) = bring(noise(amplitude=2e-4))[1]
    assert told.startswith("is very quiet: it was raised by 54 dB")


def test_a_long_song_is_read_twice_and_told_once(monkeypatch):
    wave, reads = noise(), []

    def read(tell):
        reads.append(1)
        tell("is clipped")
        yield from np.array_split(wave, 5)

    told = []
    short = list(brought_to(0.1, read, told.append))
    assert len(reads) == 1 and told == ["is clipped"]
    monkeypatch.setattr(level, "_HELD_SAMPLES", RATE)
    long = list(brought_to(0.1, read, told.append))
    assert len(reads) == 3 and told == ["is clipped"] * 2
    np.testing.assert_array_equal(np.concatenate(long), np.concatenate(short))


def test_features_do_not_depend_on_the_level(mert, mesh):
    songs = [noise(amplitude=a) for a in (0.1, 0.1 / 16, 0.13)]

    def features(config):
        blocks = [
            brought_to(config.level, lambda tell, w=w: iter([w]), print) for w in songs
        ]
        return [found for _, found in encode(mert, blocks, config, mesh)]

    same, sixteenth, other = features(LEVELLED)
    # Some processors round the rows of a batch differently.
    np.testing.assert_allclose(same, sixteenth, atol=2e-6)
    np.testing.assert_allclose(same, other, atol=1e-5)
    same, sixteenth, other = features(FEATURES)
    assert np.abs(same - sixteenth).max() > 1e-2


def test_cached_features_do_not_depend_on_the_level_either(tmp_path, mert):
    clips = []
    for name, gain in (("loud", 1.0), ("quiet", 1 / 16)):
        wave = noise() * np.float32(gain)
        soundfile.write(tmp_path / f"{name}.wav", wave, RATE, subtype="FLOAT")
        clips.append(Clip(name, tmp_path / f"{name}.wav"))
    identity = replace(IDENTITY, level=0.1)
    found = fill(clips, mert, tmp_path / "a", numbers=LEVELLED, identity=identity)
    loud, quiet = found.features("loud"), found.features("quiet")
    np.testing.assert_allclose(loud, quiet, atol=2e-6)
    assert identity.stored() == {**IDENTITY.stored(), "level": 0.1}
    plain = fill(clips, mert, tmp_path / "b")
    assert np.abs(plain.features("loud") - plain.features("quiet")).max() > 1e-2


def test_a_cache_lists_what_is_to_be_known_of_its_songs(tmp_path, mert):
    """A song that lacks a moment stops no library; it keeps its notice."""
    soundfile.write(tmp_path / "a.wav", np.clip(20 * noise(), -1, 1), RATE)
    soundfile.write(tmp_path / "b.wav", noise(), RATE)
    content = (tmp_path / "b.wav").read_bytes()
    (tmp_path / "b.wav").write_bytes(content[:-96])
    clips = [Clip(n, tmp_path / f"{n}.wav") for n in "abc"]
    found = fill(clips, mert, tmp_path / "cache")
    assert list(found.ids) == ["a", "b"] and list(found.missing) == ["c"]
    assert found.notices["b"][0].startswith("lacks 2.0 ms at its end")
    summary = description.summary(found, "abc")
    assert "2 with notices:\n" in summary
    assert f"  {tmp_path / 'a.wav'}: is clipped: " in summary
    line = description.notice_line(found, "abc")
    assert line is not None and "of 3 songs 0 are silent and 2 have notices" in line
    assert description.notice_line(found, "c") is None
    table, problem = description.inspection(found.folder)
    assert problem is None and f"notice: {tmp_path / 'b.wav'}: lacks 2.0 ms" in table
    # The shard is made again when its missing song is found; it keeps the notices.
    soundfile.write(tmp_path / "c.wav", noise(), RATE)
    (tmp_path / "b.wav").unlink()
    again = fill(clips, mert, tmp_path / "cache")
    assert again.notices == found.notices and len(again.ids) == 3


def test_the_embedded_model_hears_songs_at_the_level_of_its_training():
    assert embedded.FEATURES.level == 0.1
