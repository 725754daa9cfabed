"""Voices that sing: speech brought to the pitches of a melody, and mixed into songs."""

import numpy as np
import pytest
import scipy.signal
import soundfile

from musilingo_jax.recipes import singing
from musilingo_jax.recipes.excerpts import Track
from musilingo_jax.recipes.soundfont import SAMPLE_RATE as RATE
from musilingo_jax.runtime.errors import UserError


def spoken_vowel(seconds=3.0, pitch=120.0):
    """Pulses through two resonances, at 700 and at 1,200 Hz, as of an "ah"."""
    sound = np.zeros(round(seconds * RATE))
    sound[:: round(RATE / pitch)] = 1.0
    for formant in (700, 1200):
        pole = 0.985 * np.exp(2j * np.pi * formant / RATE)
        sound = scipy.signal.lfilter([1], np.poly([pole, pole.conj()]).real, sound)
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def pitch_of(sound):
    """The lag at which a piece of sound is most like itself, in hertz."""
    power = np.square(np.abs(np.fft.rfft(sound, 2 * len(sound))))
    alike = np.fft.irfft(power)
    lags = np.arange(RATE // 900, RATE // 80)
    return RATE / lags[np.argmax(alike[lags])]


def test_words_are_sung_at_the_pitches_of_the_melody():
    spoken = spoken_vowel()
    sung = singing.sing(spoken, np.random.default_rng(3))
    melody = singing._melody(len(spoken), np.random.default_rng(3_000))
    assert sung.shape == spoken.shape and sung.dtype == np.float32
    # `sing` draws how slowly it sings before it draws the melody.
    rng = np.random.default_rng(3)
    rng.uniform()
    melody = singing._melody(len(spoken), rng)
    for middle in np.arange(0.3, 2.7, 0.3) * RATE:
        part = slice(round(middle - 0.03 * RATE), round(middle + 0.03 * RATE))
        wanted = melody[part].mean()
        if np.ptp(melody[part]) < 0.06 * wanted:  # On one note, not between two.
            assert pitch_of(sung[part]) == pytest.approx(wanted, rel=0.06)


def test_what_the_mouth_does_is_kept():
    spoken = spoken_vowel()
    sung = singing.sing(spoken, np.random.default_rng(1))
    frequency, power = scipy.signal.welch(sung, RATE, nperseg=2048)

    def at(low, high):
        return power[(frequency >= low) & (frequency < high)].mean()

    assert at(600, 1400) > 30 * at(2500, 3500)


def test_what_has_no_pitch_is_not_given_one():
    hiss = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)
    sung = singing.sing(hiss, np.random.default_rng(2))
    part = sung[RATE : RATE + RATE // 10]
    power = np.square(np.abs(np.fft.rfft(part, 2 * len(part))))
    alike = np.fft.irfft(power)
    assert alike[RATE // 900 : RATE // 80].max() < 0.4 * alike[0]


def test_voices_are_mixed_into_songs_once(tmp_path):
    tone = np.sin(2 * np.pi * 2000 * np.arange(4 * RATE) / RATE)
    soundfile.write(tmp_path / "song.wav", 0.1 * tone, RATE)
    soundfile.write(tmp_path / "voice.wav", spoken_vowel(), RATE)
    (tmp_path / "text.wav").write_text("no sound")
    songs = [Track("game", tmp_path / name) for name in ("song.wav", "text.wav")]
    spoken = [Track("game", tmp_path / "voice.wav")]

    def write(folder, songs=songs):
        return singing.write(folder, songs, spoken, clips=3, seconds=2.0, seed=1)

    made = write(tmp_path / "mixes")
    assert {track.package for track in made} == {singing.SUNG}
    sounds = [soundfile.read(track.path)[0] for track in made]
    for sound in sounds:
        assert len(sound) == 2 * RATE and np.abs(sound).max() < 0.91
        frequency, power = scipy.signal.welch(sound, RATE, nperseg=4096)
        song = power[np.abs(frequency - 2000) < 15].sum()
        voice = power[(frequency > 80) & (frequency < 1500)].sum()
        assert 1.2 < voice / song < 12  # The voice is 2 to 10 dB above the song.
    assert not np.array_equal(sounds[0], sounds[1])
    times = [track.path.stat().st_mtime_ns for track in made]
    assert [t.path.stat().st_mtime_ns for t in write(tmp_path / "mixes")] == times
    with pytest.raises(UserError, match="no song that can be read"):
        write(tmp_path / "none", songs[1:])
