"""Sound files: the waveforms of good ones, and the errors for bad ones."""

import os
import sys
import time

import numpy as np
import pytest
import soundfile
import soxr

from musilingo_jax.audio import level, waveforms
from musilingo_jax.audio.formats import ffmpeg, libsndfile
from musilingo_jax.runtime.errors import UserError

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
    waveform = waveforms.load(path, sample_rate=RATE)
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
    waveform = waveforms.load(tmp_path / "high.wav", sample_rate=RATE)
    assert np.abs(waveform[1000:-1000]).max() < 1e-3


def test_channels_are_averaged(tmp_path):
    stereo = np.stack([tone(1.0, RATE), np.zeros(RATE)], axis=1)
    soundfile.write(tmp_path / "left.wav", stereo, RATE, subtype="FLOAT")
    waveform = waveforms.load(tmp_path / "left.wav", sample_rate=RATE)
    np.testing.assert_allclose(waveform, tone(1.0, RATE) / 2, atol=1e-6)
    assert not level.is_silent(waveform)


def test_opposite_channels_are_silent(tmp_path):
    stereo = np.stack([tone(1.0, RATE), -tone(1.0, RATE)], axis=1)
    soundfile.write(tmp_path / "opposite.wav", stereo, RATE)
    assert level.is_silent(waveforms.load(tmp_path / "opposite.wav", sample_rate=RATE))


@pytest.mark.parametrize("rate", [8_000, 44_100, 24_000, 44_101])
def test_blocks_are_the_whole_song_resampled_at_once(tmp_path, rate):
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * rate + 77).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, rate, subtype="FLOAT")
    blocks = list(waveforms.read(tmp_path / "a.wav", sample_rate=RATE))
    assert len(blocks) >= 5 and max(map(len, blocks)) <= 1.1 * RATE
    expected = soxr.resample(noise, rate, RATE, quality="HQ")
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-6)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_the_size_of_blocks_does_not_matter(tmp_path, monkeypatch, suffix):
    # A tone at so few bits that the frames of an MP3 need those before them.
    soundfile.write(tmp_path / f"a.{suffix}", tone(2.0, RATE), RATE)
    whole = waveforms.load(tmp_path / f"a.{suffix}", sample_rate=RATE)
    monkeypatch.setattr(libsndfile, "block_frames", lambda *_: 1000)
    found = waveforms.load(tmp_path / f"a.{suffix}", sample_rate=RATE)
    np.testing.assert_array_equal(found, whole)
    assert np.abs(found[RATE:]).max() > 0.45


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "npy"])
@pytest.mark.parametrize("start, end", [(0.0, 1.5), (0.7, 2.2), (4.25, 6), (5, 8.4)])
def test_a_part_is_the_part_of_the_whole(tmp_path, suffix, start, end):
    noise = np.random.default_rng(0).normal(0, 0.1, 8 * 44_100).astype(np.float32)
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, noise)
    else:
        soundfile.write(path, noise, 44_100)
    given = {"sample_rate": RATE, "npy_rate": 44_100}
    whole = np.concatenate(list(waveforms.read(path, **given)))
    part = np.concatenate(list(waveforms.read(path, **given, start=start, end=end)))
    expected = whole[round(start * RATE) : round(end * RATE)]
    np.testing.assert_allclose(part, expected, atol=1e-5)


@pytest.mark.parametrize("start", [None, 1.0, 2.3])
@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_a_part_that_is_not_all_there_is_refused(tmp_path, suffix, start):
    soundfile.write(tmp_path / f"a.{suffix}", tone(3.0, 16_000), 16_000)
    given = {"sample_rate": RATE, "start": start}
    samples = sum(map(len, waveforms.read(tmp_path / f"a.{suffix}", **given, end=3.4)))
    assert samples >= (3 - (start or 0)) * RATE - 2
    blocks = waveforms.read(tmp_path / f"a.{suffix}", **given, end=9)
    with pytest.raises(UserError, match=r"too short: it lasts 3\..*to 9 s"):
        list(blocks)


@pytest.mark.parametrize("start", [1.8, 2.5, 9.0])
def test_a_part_after_the_end_is_refused(tmp_path, start):
    soundfile.write(tmp_path / "a.wav", tone(2.0, RATE), RATE)
    with pytest.raises(
        UserError, match=r"a\.wav: (only 0\.\d0 s|too short: it lasts 2\.0 s)"
    ):
        list(waveforms.read(tmp_path / "a.wav", sample_rate=RATE, start=start))


def test_many_channels_do_not_fill_the_memory(tmp_path):
    sound = np.tile(tone(1.0, 48_000)[:, None], 200)
    soundfile.write(tmp_path / "a.wav", sound, 48_000)
    blocks = list(waveforms.read(tmp_path / "a.wav", sample_rate=48_000))
    assert len(blocks) > 5
    np.testing.assert_allclose(np.concatenate(blocks), sound[:, 0], atol=1e-4)


KINDS = [("WAV", s) for s in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")]
KINDS += [("WAV", s) for s in ("ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610")]
KINDS += [("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "FLOAT")]
KINDS += [("CAF", "ALAC_16"), ("FLAC", "PCM_24"), ("OGG", "OPUS")]


@pytest.mark.parametrize("kind, subtype", KINDS)
def test_every_kind_is_decoded_to_its_end(tmp_path, kind, subtype):
    soundfile.write(tmp_path / "a", tone(2.0, RATE), RATE, format=kind, subtype=subtype)
    waveform = waveforms.load(tmp_path / "a", sample_rate=RATE)
    assert 2 * RATE <= len(waveform) <= 2.05 * RATE
    np.testing.assert_allclose(
        waveform[RATE:][:999], tone(2.0, RATE)[RATE:][:999], atol=0.06
    )


def test_flac_from_a_pipe_does_not_know_its_length(tmp_path):
    soundfile.write(tmp_path / "a.flac", tone(2.0, RATE), RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0  # 36 bits of STREAMINFO: the number of samples.
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(content)
    assert soundfile.info(tmp_path / "a.flac").frames > 10**15
    assert len(waveforms.load(tmp_path / "a.flac", sample_rate=RATE)) == 2 * RATE


def test_wav_from_a_pipe_does_not_know_its_length(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(2.0, RATE), RATE)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[40:44] = content[4:8] = b"\xff" * 4
    (tmp_path / "a.wav").write_bytes(content)
    assert len(waveforms.load(tmp_path / "a.wav", sample_rate=RATE)) == 2 * RATE


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8", "i1", "u1", "i2", ">i2", "i4"])
@pytest.mark.parametrize("layout", ["mono", "first", "last", "fortran"])
def test_arrays_are_scaled_and_averaged(tmp_path, dtype, layout):
    left, right = tone(3.0, 16_000), tone(3.0, 16_000, 660.0, 0.25)
    sound = left[None] if layout == "mono" else np.stack([left, right])
    expected = sound.mean(axis=0)
    scale = {"i1": 2**7, "u1": 2**7, "i2": 2**15, "i4": 2**31}.get(dtype[-2:], 1)
    sound = sound * scale + (128 if dtype == "u1" else 0)
    if layout == "mono":
        sound = sound[0]
    elif layout == "last":
        sound = np.ascontiguousarray(sound.T)
    elif layout == "fortran":
        sound = np.asfortranarray(sound)
    order = "F" if layout == "fortran" else "C"
    np.save(tmp_path / "a.npy", sound.astype(dtype, order=order))
    blocks = waveforms.read(tmp_path / "a.npy", sample_rate=16_000, npy_rate=16_000)
    tolerance = 0.02 if dtype in ("i1", "u1") else 1e-3
    np.testing.assert_allclose(np.concatenate(list(blocks)), expected, atol=tolerance)


ARRAYS = {
    "objects": (np.asarray([{}, "x"], object), "contains object"),
    "words": (np.asarray(["a", "b"]), "contains <U1"),
    "long": (np.zeros(99_999, np.int64), "contains int64"),
    "cube": (np.zeros((2, 3, 4), np.float32), r"has the shape \[2, 3, 4\]"),
    "number": (np.float32(1.0), r"has the shape \[\]"),
    "none": (np.zeros((0, 9), np.float32), "it has 0 channels"),
    "square": (np.zeros((999, 999), np.float32), "it has 999 channels"),
    "loud": (np.full(99_999, 1e30), "1e\\+30 times full scale"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_are_not_sound_are_refused(tmp_path, name):
    array, reason = ARRAYS[name]
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError, match=rf"a\.npy: .*{reason}"):
        list(waveforms.read(tmp_path / "a.npy", sample_rate=RATE, npy_rate=RATE))


def test_an_array_needs_a_rate_and_its_end(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(RATE, np.float32))
    with pytest.raises(UserError, match="does not store its sample rate"):
        waveforms.load(tmp_path / "a.npy", sample_rate=RATE)
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:-4])
    with pytest.raises(UserError, match="cut off: it has 95,996 bytes of 96,000"):
        list(waveforms.read(tmp_path / "a.npy", sample_rate=RATE, npy_rate=RATE))
    (tmp_path / "a.npy").write_bytes(content[:50])
    with pytest.raises(UserError, match="its NumPy header is damaged"):
        list(waveforms.read(tmp_path / "a.npy", sample_rate=RATE, npy_rate=RATE))


def test_the_name_does_not_decide_the_format(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1.0, RATE), RATE)
    (tmp_path / "a.wav").rename(tmp_path / "a.mp3")
    assert len(waveforms.load(tmp_path / "a.mp3", sample_rate=RATE)) == RATE


def encoded(tmp_path, suffix, **options):
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * 44_100)
    soundfile.write(tmp_path / f"whole.{suffix}", noise, 44_100, **options)
    return (tmp_path / f"whole.{suffix}").read_bytes()


def cut(suffix, share, **options):
    def make(folder):
        content = encoded(folder, suffix, **options)
        return content[: int(share * len(content))]

    return make


def with_channels(count):
    def make(folder):
        content = bytearray(encoded(folder, "wav"))
        content[22:24] = count.to_bytes(2, "little")
        return content

    return make


def without_middle(folder):
    content = encoded(folder, "ogg")
    pages = [n for n in range(len(content)) if content[n : n + 4] == b"OggS"]
    return content[: pages[3]] + content[pages[4] :]


def speex(folder):
    content = encoded(folder, "ogg")
    return content[:28] + b"Speex   1.2" + content[39:]


BAD = {
    "missing.wav": (lambda folder: None, "no such file"),
    "empty.mp3": (lambda folder: b"", "empty"),
    "text.wav": (lambda folder: b"This is no music.\n" * 99, "decoded: it is text"),
    "text.mp3": (lambda folder: "Ceci n'est pas ♪.\n".encode() * 99, "it is text"),
    "page.mp3": (lambda folder: b"\n<!DOCTYPE html><html>" * 99, "it is a web page"),
    "pointer.wav": (lambda folder: b"version https://git-lfs.x", "a Git LFS pointer"),
    "picture.ogg": (lambda folder: b"\x89PNG\r\n\x1a\n" + bytes(999), "a picture"),
    "render.mid": (lambda folder: b"MThd" + bytes(range(99)), "it is MIDI: notes"),
    "riff.mid": (lambda folder: b"RIFF\x99\0\0\0RMID" + bytes(99), "it is MIDI: notes"),
    "a.avi": (lambda folder: b"RIFF\x99\0\0\0AVI " + bytes(99), "it is an AVI video"),
    "a.wv": (lambda folder: b"wvpk" + bytes(99), "it is WavPack, .*convert it to FLAC"),
    "a.spx": (lambda folder: speex(folder), "it is Speex, which is not read; convert"),
    "a.xm": (lambda folder: b"Extended Module: a" + bytes(99), "it is a tracker"),
    "a.mod": (lambda folder: bytes(1080) + b"M.K." + bytes(99), "it is a tracker"),
    "a.m3u": (lambda folder: b"\xef\xbb\xbf#EXTM3U\nsong.mp3\n", "it is a playlist"),
    "zeros.raw": (lambda folder: bytes(99_999), "nothing but zeros"),
    "noise.raw": (lambda folder: bytes(range(256)) * 99, "damaged or not sound"),
    "cut.wav": (cut("wav", 0.9), "cut off: .* bytes of"),
    "cut.rf64": (cut("rf64", 0.9, format="RF64"), "cut off: .* bytes of"),
    "cut.w64": (cut("w64", 0.9, format="W64"), "cut off: .* bytes of"),
    "cut.caf": (cut("caf", 0.9), "cut off: .* bytes of|damaged"),
    "cut.aiff": (cut("aiff", 0.5), "cut off: .* bytes of"),
    "cut.au": (cut("au", 0.5), "cut off: .* bytes of"),
    "cut.flac": (cut("flac", 0.4), "damaged after"),
    "cut.ogg": (cut("ogg", 0.97), "last Ogg page is incomplete"),
    "cut.opus": (cut("ogg", 0.5), "last Ogg page"),
    "hole.ogg": (without_middle, "damaged: 1 of its Ogg pages are missing"),
    "cut.mp3": (cut("mp3", 0.7), "cut off: .* bytes of"),
    "none.wav": (with_channels(0), "damaged .Channel count is zero"),
    "many.wav": (with_channels(900), "it has 900 channels"),
    "head.wav": (lambda folder: encoded(folder, "wav")[:7], "cannot be decoded"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_name_and_reason(tmp_path, name):
    make, reason = BAD[name]
    if (content := make(tmp_path)) is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: .*{reason}") as caught:
        waveforms.load(tmp_path / name, sample_rate=RATE)
    assert "\n" not in str(caught.value)


def test_an_mp3_without_an_index_is_decoded_to_its_end(tmp_path):
    options = {"bitrate_mode": "CONSTANT", "compression_level": 0.5}
    whole = encoded(tmp_path, "mp3", **options)
    frame = whole.index(b"\xff\xfb", 4)  # After the frame that holds the index.
    (tmp_path / "a.mp3").write_bytes(whole[frame : len(whole) // 2])
    assert (
        1.2 * RATE
        < len(waveforms.load(tmp_path / "a.mp3", sample_rate=RATE))
        < 2 * RATE
    )


def test_opening_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(UserError, match="cannot be read: is not a regular file"):
        waveforms.load(tmp_path / "a.wav", sample_rate=RATE)


def test_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read: is a folder"):
        waveforms.load(tmp_path, sample_rate=RATE)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path, bad):
    waveform = tone(1.0, RATE)
    waveform[77] = bad
    soundfile.write(tmp_path / "a.wav", waveform, RATE, subtype="FLOAT")
    with pytest.raises(UserError, match="NaN or infinite"):
        waveforms.load(tmp_path / "a.wav", sample_rate=RATE)


def test_less_than_half_a_second_is_refused(tmp_path):
    for frames in (0, 1, RATE // 2 - 1):
        soundfile.write(tmp_path / "a.wav", np.zeros(frames), RATE)
        with pytest.raises(UserError, match=r"only 0\.\d\d s of sound"):
            waveforms.load(tmp_path / "a.wav", sample_rate=RATE)
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE // 2), RATE)
    assert len(waveforms.load(tmp_path / "a.wav", sample_rate=RATE)) == RATE // 2


def test_impossible_rates_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1.0, RATE), 7)
    with pytest.raises(UserError, match="7 samples per second"):
        waveforms.load(tmp_path / "a.wav", sample_rate=RATE)


FAKE = """#!{python}
import os, struct, sys, time
sys.stdout.buffer.write(struct.pack(">4s5I", b".snd", 28, 2**32 - 1, 6, 24000, 2))
sys.stdout.buffer.write(b"....")
for second in range({seconds}):
    sys.stdout.buffer.write(struct.pack(">2f", 0.25, 0.75) * 24000)
sys.stdout.flush()
{then}
"""


@pytest.fixture
def fake_ffmpeg(tmp_path, monkeypatch):
    """Puts a program called ffmpeg first on the path, which does what a test says."""

    def make(seconds, then):
        program = tmp_path / "bin/ffmpeg"
        program.parent.mkdir()
        program.write_text(
            FAKE.format(python=sys.executable, seconds=seconds, then=then)
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent))
        (tmp_path / "a.m4a").write_bytes(bytes(4) + b"ftypM4A " + bytes(99))
        return tmp_path / "a.m4a"

    return make


def test_ffmpeg_decodes_what_is_left(fake_ffmpeg):
    path = fake_ffmpeg(3, "assert '-protocol_whitelist' in sys.argv")
    waveform = waveforms.load(path, sample_rate=RATE)
    assert len(waveform) == 3 * RATE
    np.testing.assert_allclose(waveform, 0.5)
    part = list(waveforms.read(path, sample_rate=RATE, start=2.5, end=3.25))
    assert sum(map(len, part)) == RATE / 2


COMPLAINT = "print('[aac @ 0x55ef] broken', file=sys.stderr)"
FAILING = {
    "os._exit(3)": r"damaged or cut off after 2.0 s .ffmpeg: status 3",
    COMPLAINT: r"after 2.0 s .ffmpeg: broken.;",
    "os.kill(os.getpid(), 9)": "ffmpeg was killed",
    "os.close(1); time.sleep(99)": "ffmpeg was killed, or wrote nothing",
    "time.sleep(99)": "ffmpeg was killed, or wrote nothing",
    "os.system('sleep 99')": "ffmpeg was killed, or wrote nothing",
}


@pytest.mark.parametrize("then", FAILING)
def test_ffmpeg_may_fail_or_hang(fake_ffmpeg, monkeypatch, then):
    if "sleep" in then:
        monkeypatch.setattr(ffmpeg, "STALL_SECONDS", 0.5)
    path = fake_ffmpeg(2, then)
    monkeypatch.setenv("PATH", f"{path.parent / 'bin'}:/usr/bin:/bin")
    with pytest.raises(UserError, match=rf"a\.m4a: .*{FAILING[then]}"):
        waveforms.load(path, sample_rate=RATE)


def test_ffmpeg_ends_when_its_reader_stops(fake_ffmpeg, tmp_path):
    path = fake_ffmpeg(999, "")
    program = tmp_path / "bin/ffmpeg"
    note = f"import os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
    shebang, rest = program.read_text().split("\n", 1)
    program.write_text(f"{shebang}\n{note}{rest}")
    blocks = waveforms.read(path, sample_rate=RATE)
    next(blocks)
    blocks.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def box(name, content=b""):
    return (8 + len(content)).to_bytes(4, "big") + name + content


def test_several_streams_of_sound_are_refused_by_ffmpeg_too(fake_ffmpeg):
    """ffmpeg refuses to write them into one AU file; the second start counts them."""
    path = fake_ffmpeg(0, "")
    program = path.parent / "bin/ffmpeg"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "if '-map' not in sys.argv:\n"
        "    for n in (0, 1): print(f'  Stream #0:{n}[0x1](und): Audio: aac',"
        " file=sys.stderr)\n"
        "    print('  Stream #0:2: Video: h264', file=sys.stderr)\n"
        "sys.exit('only one stream is supported')\n"
    )
    with pytest.raises(UserError, match=r"a\.m4a: holds 2 streams of sound at once"):
        waveforms.load(path, sample_rate=RATE)


def test_songs_that_ffmpeg_would_leave_out_are_refused(fake_ffmpeg):
    path = fake_ffmpeg(3, "")
    one = box(b"ftyp", b"M4A ") + box(b"moov", bytes(90)) + box(b"mdat", bytes(999))
    path.write_bytes(one)
    assert len(waveforms.load(path, sample_rate=RATE)) == 3 * RATE
    path.write_bytes(one + one)
    with pytest.raises(UserError, match=r"a\.m4a: holds 2 songs one after the other"):
        waveforms.load(path, sample_rate=RATE)
    header = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
    objects = header, bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
    one = b"".join(name + (99).to_bytes(8, "little") + bytes(75) for name in objects)
    path.write_bytes(one)
    assert len(waveforms.load(path, sample_rate=RATE)) == 3 * RATE
    path.write_bytes(one * 3)
    with pytest.raises(UserError, match=r"a\.m4a: holds 3 songs one after the other"):
        waveforms.load(path, sample_rate=RATE)


def test_without_ffmpeg_the_error_asks_for_it(fake_ffmpeg, monkeypatch, tmp_path):
    path = fake_ffmpeg(1, "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"a\.m4a: .* need ffmpeg; install it"):
        waveforms.load(path, sample_rate=RATE)


def test_reading_ahead_keeps_the_order_and_raises_errors(tmp_path):
    paths = [tmp_path / f"{n}.wav" for n in range(50)]
    for n, path in enumerate(paths):
        if n != 7:
            soundfile.write(path, np.full(RATE, n / 100), RATE, subtype="FLOAT")
    songs = [waveforms.read(path, sample_rate=RATE) for path in paths]
    songs.insert(20, None)
    for n, blocks in enumerate(waveforms.read_ahead(iter(songs))):
        if n == 7:
            with pytest.raises(UserError, match="no such file"):
                list(blocks)
        elif n == 20:
            assert blocks is None
        else:
            waveform = np.concatenate(list(blocks))
            assert waveform[0] == np.float32((n - (n > 20)) / 100)
            assert len(waveform) == RATE


def test_reading_ahead_stops_at_half_a_minute_of_a_few_songs():
    begun, made = [], []

    def endless(number):
        begun.append(number)
        while True:
            made.append(number)
            yield np.zeros(10, np.float32)

    songs = waveforms.read_ahead(endless(number) for number in range(999))
    first = next(songs)
    for _ in range(500):
        next(first)
    deadline = time.monotonic() + 60
    while len(begun) < waveforms._threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(begun) == waveforms._threads()
    assert len(made) - 500 <= (waveforms._BLOCKS_AHEAD + 1) * len(begun)
    songs.close()  # Ends the threads, or this test would never end.


def test_an_unexpected_error_is_not_lost():
    def broken():
        yield np.zeros(10, np.float32)
        raise ZeroDivisionError("ours")

    (blocks,) = waveforms.read_ahead([broken()])
    with pytest.raises((ZeroDivisionError, RuntimeError)):
        list(blocks)


def test_a_meter_counts_samples_and_keeps_the_peak():
    meter = level.Meter(iter([np.zeros(5, np.float32), np.full(3, -0.5, np.float32)]))
    assert len(list(meter)) == 2
    assert (meter.samples, meter.peak, meter.silent) == (8, 0.5, False)
    assert level.Meter(iter([])).silent


@pytest.mark.parametrize("block", [1, 3, 4, 5, 100])
@pytest.mark.parametrize(
    "samples, lengths",
    [
        (0, [0]),
        (1, [1]),
        (5, [5]),
        (6, [5, 2]),
        (9, [5, 5]),
        (10, [5, 5, 2]),
        (11, [5, 5, 3]),
        (29, [5] * 7),
    ],
)
def test_chunks_cover_the_waveform(samples, lengths, block):
    waveform = np.arange(1, samples + 1, dtype=np.float32)
    blocks = [waveform[n : n + block] for n in range(0, samples, block)]
    chunks = list(waveforms.cut(iter(blocks), chunk_samples=5, hop_samples=4))
    assert [len(chunk) for chunk in chunks] == lengths
    for number, chunk in enumerate(chunks):
        np.testing.assert_array_equal(chunk, waveform[4 * number :][:5])
