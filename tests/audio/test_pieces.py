"""Files of several songs, unfinished headers, and what is missing or left over."""

import io
import os
import struct

import numpy as np
import pytest
import soundfile
from helpers.joined_sound import RATE, encoded, page_with, pages, tone
from hypothesis import given
from hypothesis import strategies as st

from musilingo_jax.audio import waveforms
from musilingo_jax.audio.formats import (
    chunked_files,
    ffmpeg,
    mpeg_frames,
    ogg_pages,
    pieces,
)
from musilingo_jax.audio.formats.window import Piece, Window
from musilingo_jax.runtime.errors import UserError


def hear(path):
    """The waveform of a file at its own rate, and what is told of it."""
    told = []
    return waveforms.load(path, sample_rate=RATE, tell=told.append), told


def write(folder, content, name="song"):
    (folder / name).write_bytes(content)
    return folder / name


KINDS = ["wav", "rf64", "w64", "aiff", "au", "caf", "flac", "ogg", "opus", "mp3"]


def song(folder, kind, sound):
    if kind == "opus":
        return encoded(folder, "ogg", sound, subtype="OPUS")
    return encoded(folder, kind, sound)


@pytest.mark.parametrize("kind", KINDS)
def test_songs_one_after_the_other_are_all_heard(tmp_path, kind):
    both = [song(tmp_path, kind, tone(2.0, f)) for f in (440.0, 880.0)]
    apart = [hear(write(tmp_path, content))[0] for content in both]
    joined, told = hear(write(tmp_path, b"".join(both)))
    np.testing.assert_allclose(joined, np.concatenate(apart), atol=1e-5)
    assert told == ["holds 2 songs one after the other, which are taken as one"]
    path = tmp_path / "song"
    part = waveforms.read(path, sample_rate=RATE, start=1.5, end=3.5, tell=told.append)
    part = np.concatenate(list(part))
    assert len(part) == 2 * RATE
    np.testing.assert_allclose(
        part, joined[round(1.5 * RATE) :][: len(part)], atol=1e-4
    )


def test_frames_after_the_end_of_an_mp3_are_heard(tmp_path):
    """The index at its beginning counts less, as after an advertisement was added."""
    first, second = (song(tmp_path, "mp3", tone(2.0, f)) for f in (440.0, 880.0))
    frame = mpeg_frames.frame_length(second[:4])
    assert mpeg_frames.index(second) is not None  # In the first frame, left out here.
    heard, told = hear(write(tmp_path, first + second[frame:] * 2))
    assert len(heard) > 5.9 * RATE and "one after the other" in told[0]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("rate", [24_000, 44_100])
def test_an_mp3_of_changing_bit_rate_is_heard_whole_without_an_index(
    tmp_path, rate, order
):
    """Its first frame's bit rate makes it a sixth as long, or twice as long."""
    noise = np.random.default_rng(0).normal(0, 0.2, 3 * rate)
    sound = np.concatenate([noise, np.zeros(20 * rate)][::order])
    options = {"bitrate_mode": "VARIABLE", "compression_level": 0.3}
    content = encoded(tmp_path, "mp3", sound, rate=rate, **options)
    frame = mpeg_frames.frame_length(content[:4])
    assert mpeg_frames.index(content) is not None  # In the first frame, left out here.
    told = []
    path = write(tmp_path, content[frame:])
    heard = waveforms.load(path, sample_rate=rate, tell=told.append)
    assert not told and 23 <= len(heard) / rate < 23.2
    whole = waveforms.load(write(tmp_path, content), sample_rate=rate)
    # Without the index the encoder's delay is not known.
    delay = np.argmax(np.correlate(heard[: 4 * rate], whole[rate : 2 * rate])) - rate
    if order == 1:
        np.testing.assert_allclose(
            heard[delay:][: 2 * rate], whole[: 2 * rate], atol=1e-3
        )


def test_songs_with_different_sample_rates_are_refused(tmp_path):
    first = song(tmp_path, "flac", tone(1.0))
    second = encoded(tmp_path, "flac", tone(1.0), rate=16_000)
    with pytest.raises(UserError, match=r"2 songs .* rates \(16000, 24000\); split it"):
        hear(write(tmp_path, first + second))


def test_streams_at_once_are_refused(tmp_path):
    first, second = (
        pages(encoded(tmp_path, "ogg", tone(2.0), subtype=subtype))
        for subtype in ("VORBIS", "OPUS")
    )
    together = [first[0], second[0], *first[1:], *second[1:]]
    with pytest.raises(
        UserError, match=r"2 streams .* \(Vorbis and Opus\).*-map 0:a:0"
    ):
        hear(write(tmp_path, b"".join(together)))


def other_stream(content, serial=77):
    """Two pages of a stream that is not sound, made from those of one that is."""

    def change(page):
        page[14:18] = serial.to_bytes(4, "little")
        page[28:36] = b"fishead\0"

    return [page_with(page, change) for page in (pages(content)[0],)]


def test_a_stream_that_is_not_sound_does_not_matter(tmp_path):
    own = pages(encoded(tmp_path, "ogg", tone(2.0)))
    joined = b"".join([own[0], *other_stream(b"".join(own)), *own[1:]])
    heard, told = hear(write(tmp_path, joined))
    assert len(heard) == 2 * RATE and not told


def last_page_with(content, change):
    *before, last = pages(content)
    return b"".join([*before, page_with(last, change)])


def test_an_ogg_without_its_end_mark_is_heard(tmp_path):
    def unmark(page):
        page[5] &= ~4

    heard, told = hear(
        write(tmp_path, last_page_with(encoded(tmp_path, "ogg", tone(2.0)), unmark))
    )
    assert len(heard) == 2 * RATE
    assert len(told) == 1 and "does not mark its last Ogg page" in told[0]


def test_a_few_samples_that_an_ogg_promises_are_told(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * RATE)  # Of several pages.
    content = encoded(tmp_path, "ogg", noise)

    def promising(more):
        def change(page):
            (end,) = struct.unpack("<q", page[6:14])
            page[6:14] = struct.pack("<q", end + more)

        return write(tmp_path, last_page_with(content, change))

    heard, told = hear(promising(2_400))
    assert 2 * RATE <= len(heard) < 2.1 * RATE
    assert len(told) == 1 and "ms more than the" in told[0]
    with pytest.raises(UserError, match=r"cut off after 2\.\d s of 4\.0 s"):
        hear(promising(2 * RATE))


def test_a_few_milliseconds_that_a_wav_lacks_are_told(tmp_path):
    content = encoded(tmp_path, "wav", tone(2.0))
    heard, told = hear(write(tmp_path, content[:-480]))
    assert len(heard) == 2 * RATE - 240
    assert told == ["lacks 10.0 ms at its end: its sound has 95,520 bytes of 96,000"]


def place_of(content, name, shift):
    return content.index(name) + shift


# Kind → where its sizes are: the name before one, how far behind it begins, its format.
SIZES = {
    "wav": [(b"RIFF", 4, "<I"), (b"data", 4, "<I")],
    "rf64": [(b"ds64", 8, "<Q"), (b"ds64", 16, "<Q"), (b"ds64", 24, "<Q")],
    "w64": [(b"riff", 16, "<Q"), (b"data", 16, "<Q")],
    "aiff": [(b"FORM", 4, ">I"), (b"SSND", 4, ">I"), (b"COMM", 10, ">I")],
    "au": [(b".snd", 8, ">I")],
    "caf": [(b"data", 4, ">Q")],
}


@pytest.mark.parametrize("value", ["zeros", "ones"])
@pytest.mark.parametrize("kind", SIZES)
def test_a_header_that_was_never_finished(tmp_path, kind, value):
    """As of a recorder that crashed, or of a program that wrote into a pipe."""
    content = bytearray(encoded(tmp_path, kind, tone(2.0)))
    for name, shift, layout in SIZES[kind]:
        place = content.index(name) + shift
        size = struct.calcsize(layout)
        content[place : place + size] = (b"\0" if value == "zeros" else b"\xff") * size
    heard, told = hear(write(tmp_path, content))
    np.testing.assert_allclose(heard, tone(2.0), atol=1e-4)
    assert len(told) == (value == "zeros")
    assert all("never finished: it says 0 bytes of sound, but 96" in t for t in told)


def test_an_empty_wav_with_a_title_is_empty(tmp_path):
    content = bytearray(encoded(tmp_path, "wav", np.zeros(0)))
    content += b"LIST" + struct.pack("<I", 26) + b"INFOINAM\x0e\0\0\0Nothing at all"
    with pytest.raises(UserError, match=r"only 0\.00 s of sound"):
        hear(write(tmp_path, content))


def test_bytes_after_the_sound_are_told_unless_they_are_tags(tmp_path):
    content = encoded(tmp_path, "wav", tone(1.0))
    heard, told = hear(write(tmp_path, content + bytes(range(1, 256)) * 3))
    assert len(heard) == RATE
    assert not hear(write(tmp_path, content + b"*"))[1]
    assert told == [
        "has 765 bytes after the end of its sound, by its header, which are not heard"
    ]
    chunk = b"LIST" + struct.pack("<I", 26) + b"INFOINAM\x0e\0\0\0A song with it"
    for tag in (chunk, bytes(999), b"TAG" + bytes(125), b"ID3\4" + bytes(99)):
        heard, told = hear(write(tmp_path, content + tag))
        assert len(heard) == RATE and not told, tag[:4]
    np.save(tmp_path / "a.npy", tone(1.0))
    with (tmp_path / "a.npy").open("ab") as file:
        np.save(file, tone(2.0))
    told = []
    blocks = waveforms.read(
        tmp_path / "a.npy", sample_rate=RATE, npy_rate=RATE, tell=told.append
    )
    assert sum(map(len, blocks)) == RATE
    assert "bytes after its array, which are not heard: another array" in told[0]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8"])
def test_clipping_is_told(tmp_path, subtype):
    loud = np.clip(2.5 * tone(1.0), -1, 1)
    soundfile.write(tmp_path / "a.wav", loud, RATE, subtype=subtype)
    _, told = hear(tmp_path / "a.wav")
    assert len(told) == 1 and told[0].startswith("is clipped: 3")
    soundfile.write(tmp_path / "a.wav", 1.9 * tone(1.0), RATE, subtype=subtype)
    if subtype != "PCM_U8":  # Which has equal neighbours at the top of any wave.
        assert hear(tmp_path / "a.wav")[1] == []
    soundfile.write(tmp_path / "a.wav", 5 * tone(1.0), RATE, subtype="FLOAT")
    assert hear(tmp_path / "a.wav")[1] == []  # Fractions above 1 are all there.


def test_channels_that_cancel_each_other_out_are_told(tmp_path):
    wave = tone(1.0)
    for factor, cancels in ((-0.95, True), (-0.5, False), (0.0, False), (1.0, False)):
        both = np.stack([wave, factor * wave], axis=1)
        soundfile.write(tmp_path / "a.wav", both, RATE, subtype="FLOAT")
        _, told = hear(tmp_path / "a.wav")
        assert any("cancel each other out" in notice for notice in told) == cancels


def test_more_than_two_channels_are_told(tmp_path):
    sound = np.stack([tone(1.0, 100.0 * n) for n in range(1, 7)], axis=1)
    soundfile.write(tmp_path / "a.wav", sound, RATE)
    heard, told = hear(tmp_path / "a.wav")
    np.testing.assert_allclose(heard, sound.mean(axis=1), atol=1e-4)
    assert told == ["has 6 channels, of which the mean is heard"]


def test_a_part_that_ends_too_early_is_told(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(2.0), RATE)
    for end, expected in (
        (2.05, []),
        (2.3, ["ends 0.3 s before its part up to 2.3 s"]),
    ):
        told = []
        blocks = waveforms.read(
            tmp_path / "a.wav", sample_rate=RATE, end=end, tell=told.append
        )
        assert sum(map(len, blocks)) == 2 * RATE
        assert [notice[:38] for notice in told] == expected


def test_whole_numbers_that_were_never_scaled_are_told(tmp_path):
    soundfile.write(tmp_path / "a.wav", 32_767 * tone(1.0), RATE, subtype="FLOAT")
    _, told = hear(tmp_path / "a.wav")
    assert told == [
        "reaches 16,384 times full scale, as whole numbers do that were never scaled "
        "to ±1"
    ]


def test_without_a_listener_notices_go_to_stderr(tmp_path, capsys):
    path = write(tmp_path, encoded(tmp_path, "wav", tone(1.0)) + b"more" * 999, "a.wav")
    waveforms.load(path, sample_rate=RATE)
    assert capsys.readouterr().err.startswith(
        f"note: {path}: has 3,996 bytes after the end"
    )


@given(
    st.binary(max_size=200),
    st.tuples(st.integers(0, 200), st.integers(0, 200)).map(sorted),
    st.dictionaries(st.integers(0, 150), st.binary(min_size=1, max_size=9), max_size=2),
    st.lists(st.tuples(st.integers(0, 250), st.integers(0, 80)), max_size=8),
)
def test_a_window_reads_like_a_file_of_its_own(content, ends, repair, reads):
    start, stop = (min(end, len(content)) for end in ends)
    expected = bytearray(content[start:stop])
    for place, new in repair.items():
        new = new[: max(0, len(expected) - place)]
        expected[place : place + len(new)] = new
    window = Window(io.BytesIO(content), Piece(start, stop, repair))
    plain = io.BytesIO(bytes(expected))
    for place, count in reads:
        assert window.seek(place) == plain.seek(place) == window.tell()
        assert window.read(count) == plain.read(count)
    assert window.seek(0, os.SEEK_END) == len(expected)


BEGINNINGS = [
    *chunked_files.KINDS,
    b"OggS\0",
    b".snd",
    b"fLaC\0\0\0\x22",
    b"\xff\xfb",
    b"",
]
WORDS = [
    b"data",
    b"fmt ",
    b"SSND",
    b"ds64",
    b"OggS\0",
    b"Xing",
    b"\xff\xfb\x90\0",
    b"ID3",
]
BYTES = st.one_of(st.sampled_from(WORDS), st.binary(max_size=40))


@given(st.sampled_from(BEGINNINGS), st.lists(BYTES, max_size=20))
def test_any_header_is_cut_into_pieces_within_the_file(tmp_path_factory, magic, rest):
    content = magic + b"".join(rest)
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    try:
        found = pieces.find(path)
    except UserError:
        assert magic == b"OggS\0" and content.count(b"OggS\0") > 1
        return
    places = [place for piece in found.pieces for place in piece[:2]]
    assert places == sorted(places) and places[0] >= 0 and places[-1] <= len(content)
    assert 0 <= found.missing <= 1


@given(st.sampled_from(["mov", "asf"]), st.lists(BYTES, max_size=20))
def test_any_boxes_are_walked_through(tmp_path_factory, kind, content):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(b"".join(content))
    assert len(list(ffmpeg._boxes(path, kind))) <= len(b"".join(content)) / 8


PAGE = st.tuples(
    st.sampled_from([0, 1, 2, 4, 6]), st.integers(0, 2), st.binary(max_size=300)
)


@given(st.lists(PAGE, max_size=12), st.binary(max_size=30))
def test_all_bytes_of_an_ogg_are_accounted_for(tmp_path_factory, described, rest):
    rest = rest.replace(b"OggS", b"")
    content, firsts, opening = b"", 0, False
    for number, (marks, serial, body) in enumerate(described):
        segments = [255] * (len(body) // 255) + [len(body) % 255]
        header = struct.pack(
            "<5sBqIIIB", b"OggS\0", marks, 0, serial, number, 0, len(segments)
        )
        content += header + bytes(segments) + body
        firsts += bool(marks & 2) and not opening
        opening = bool(marks & 2)
    path = tmp_path_factory.getbasetemp() / "any.ogg"
    path.write_bytes(content + rest)
    with path.open("rb") as file:
        found = ogg_pages.scan(file, 0)
    begun_late = bool(described) and not described[0][0] & 2
    assert len(found.links) == firsts + begun_late
    assert found.whole and found.other == len(rest)
    assert sum(link.stop - link.start for link in found.links) == len(content)


@given(st.binary(min_size=4, max_size=4))
def test_frames_have_possible_lengths(header):
    length = mpeg_frames.frame_length(header)
    assert length is None or 24 <= length <= 2881 or header[0] == 0xFF
