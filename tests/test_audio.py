"""Sound files: what comes out of good ones, and what is said about bad ones."""

import numpy as np
import pytest
import soundfile

from musilingo_jax import audio
from musilingo_jax.errors import UserError

RATE = 24_000


def tone(seconds, rate, frequency=440.0, amplitude=0.5):
    return amplitude * np.sin(
        2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate
    )


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_tone_keeps_its_length_pitch_and_loudness(tmp_path, suffix, rate):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(2.0, rate), rate)
    waveform = audio.load(path, sample_rate=RATE)
    assert waveform.dtype == np.float32 and waveform.ndim == 1
    if suffix in ("wav", "flac"):
        assert len(waveform) == 2 * RATE
    else:
        assert abs(len(waveform) - 2 * RATE) < 0.1 * RATE
    middle = waveform[RATE // 2 : 3 * RATE // 2]
    assert np.argmax(np.abs(np.fft.rfft(middle))) == 440
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / 2**0.5, rel=0.03)


def test_resampling_removes_what_the_new_rate_cannot_hold(tmp_path):
    soundfile.write(tmp_path / "high.wav", tone(1.0, 48_000, 15_000), 48_000)
    waveform = audio.load(tmp_path / "high.wav", sample_rate=RATE)
    assert np.abs(waveform[1000:-1000]).max() < 1e-3


def test_channels_are_averaged(tmp_path):
    stereo = np.stack([tone(1.0, RATE), np.zeros(RATE)], axis=1)
    soundfile.write(tmp_path / "left.wav", stereo, RATE, subtype="FLOAT")
    waveform = audio.load(tmp_path / "left.wav", sample_rate=RATE)
    np.testing.assert_allclose(waveform, tone(1.0, RATE) / 2, atol=1e-6)
    assert not audio.is_silent(waveform)


def test_opposite_channels_are_silent(tmp_path):
    stereo = np.stack([tone(1.0, RATE), -tone(1.0, RATE)], axis=1)
    soundfile.write(tmp_path / "opposite.wav", stereo, RATE)
    assert audio.is_silent(audio.load(tmp_path / "opposite.wav", sample_rate=RATE))


def test_long_files_are_decoded_in_blocks(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.flac", tone(1.0, RATE), RATE)
    whole = audio.load(tmp_path / "a.flac", sample_rate=RATE)
    monkeypatch.setattr(audio, "_BLOCK_FRAMES", 1000)
    np.testing.assert_array_equal(
        audio.load(tmp_path / "a.flac", sample_rate=RATE), whole
    )


def test_the_name_need_not_tell_the_format(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1.0, RATE), RATE)
    (tmp_path / "a.wav").rename(tmp_path / "a.mp3")
    assert len(audio.load(tmp_path / "a.mp3", sample_rate=RATE)) == RATE


def encoded(tmp_path, suffix):
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * 44_100)
    soundfile.write(tmp_path / f"whole.{suffix}", noise, 44_100)
    return (tmp_path / f"whole.{suffix}").read_bytes()


BAD = {
    "missing.wav": (lambda folder: None, "no such file"),
    "empty.mp3": (lambda folder: b"", "empty"),
    "text.wav": (lambda folder: b"This is no music.\n" * 99, "cannot be decoded"),
    "text.mp3": (lambda folder: b"This is no music.\n" * 99, "cannot be decoded"),
    "picture.ogg": (lambda folder: b"\x89PNG\r\n\x1a\n" + bytes(999), "cannot be dec"),
    "headless.raw": (lambda folder: bytes(99_999), "cannot be decoded"),
    "cut.flac": (lambda folder: encoded(folder, "flac")[:99_999], "damaged after"),
    "cut.mp3": (lambda folder: encoded(folder, "mp3")[:20_000], "cut off after"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_name_and_reason(tmp_path, name):
    make, reason = BAD[name]
    if (content := make(tmp_path)) is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: .*{reason}"):
        audio.load(tmp_path / name, sample_rate=RATE)


def test_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        audio.load(tmp_path, sample_rate=RATE)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(tmp_path, bad):
    waveform = tone(1.0, RATE)
    waveform[77] = bad
    soundfile.write(tmp_path / "a.wav", waveform, RATE, subtype="FLOAT")
    with pytest.raises(UserError, match="NaN or infinite"):
        audio.load(tmp_path / "a.wav", sample_rate=RATE)


def test_half_a_second_is_the_least(tmp_path):
    for frames in (0, 1, RATE // 2 - 1):
        soundfile.write(tmp_path / "a.wav", np.zeros(frames), RATE)
        with pytest.raises(UserError, match=r"only 0\.\d\d s of sound"):
            audio.load(tmp_path / "a.wav", sample_rate=RATE)
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE // 2), RATE)
    assert len(audio.load(tmp_path / "a.wav", sample_rate=RATE)) == RATE // 2


def test_impossible_rates_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1.0, RATE), 7)
    with pytest.raises(UserError, match="7 samples per second"):
        audio.load(tmp_path / "a.wav", sample_rate=RATE)


def test_loading_ahead_keeps_the_order_and_returns_errors(tmp_path):
    paths = [tmp_path / f"{n}.wav" for n in range(50)]
    for n, path in enumerate(paths):
        if n != 7:
            soundfile.write(path, np.full(RATE, n / 100), RATE, subtype="FLOAT")
    loaded = list(audio.load_ahead(paths, sample_rate=RATE))
    assert isinstance(loaded.pop(7), UserError)
    expected = [n / 100 for n in range(50) if n != 7]
    np.testing.assert_allclose([w[0] for w in loaded], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "samples, lengths",
    [(1, [1]), (5, [5]), (6, [5, 2]), (9, [5, 5]), (10, [5, 5, 2]), (11, [5, 5, 3])],
)
def test_chunks_cover_the_waveform(samples, lengths):
    waveform = np.arange(1, samples + 1, dtype=np.float32)
    cut, found = audio.chunks(waveform, chunk_samples=5, hop_samples=4)
    assert found.tolist() == lengths and cut.shape == (len(lengths), 5)
    for number, length in enumerate(lengths):
        piece = waveform[4 * number : 4 * number + 5]
        np.testing.assert_array_equal(cut[number, :length], piece)
        assert not cut[number, length:].any()
