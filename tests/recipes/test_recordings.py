"""Recordings: packages, excerpts, speech and noise, and what is taken for known."""

import io
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
import soundfile

from musilingo_jax.corpora import songs
from musilingo_jax.recipes import (
    augmentation,
    excerpts,
    no_music,
    pseudo_labels,
    recorded_songs,
    recordings,
    tempi,
)
from musilingo_jax.recipes.excerpts import RecordedSet, Track
from musilingo_jax.recipes.recordings import LEARN, LEFT_OUT, Package
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium

RATE = 24_000


def ogg(seconds=0.2):
    file = io.BytesIO()
    soundfile.write(file, np.zeros(round(seconds * RATE)), RATE, "VORBIS", format="OGG")
    return file.getvalue()


def test_no_package_is_learnt_from_and_left_out():
    names = [package.name for package in recordings.PACKAGES]
    assert len(names) == len(set(names))
    assert {package.role for package in recordings.PACKAGES} == {LEARN, LEFT_OUT}
    for role in (LEARN, LEFT_OUT):
        assert any(p.speech for p in recordings.PACKAGES if p.role == role)
    # Its charts are what tempi are measured with.
    (charts,) = (p for p in recordings.PACKAGES if "fretsonfire" in p.name)
    assert charts.role == LEFT_OUT


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs Debian's dpkg-deb")
def test_music_and_speech_and_licences_of_a_package_are_kept(tmp_path):
    tree = tmp_path / "tree"
    pack = io.BytesIO()
    with zipfile.ZipFile(pack, "w") as archive:
        archive.writestr("music/inside.ogg", ogg())
        archive.writestr("music/readme.txt", "text")
    files = {
        "DEBIAN/control": b"Package: a-game\nVersion: 1\nArchitecture: all\n"
        b"Maintainer: nobody <a@b.c>\nDescription: a game\n",
        "usr/share/doc/a-game/copyright": b"CC0",
        "usr/share/doc/other/copyright": b"another's",
        "usr/share/a/music/one/song.ogg": ogg(),
        "usr/share/a/music/two/song.ogg": ogg(),
        "usr/share/a/sounds/bang.ogg": ogg(),
        "usr/share/a/voices/one/hello.ogg": ogg(),
        "usr/share/a/voices/two/hello.ogg": ogg(),
        "usr/share/a/music/one/notes.mid": b"MThd",
        "usr/share/a/pack.pk3": pack.getvalue(),
    }
    for name, content in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    deb = tmp_path / "a-game_1.deb"
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", tree, deb],
        check=True,
        capture_output=True,
    )
    package = Package(
        "a-game", "1", "", "CC0", "*/music/*", speech="*/voices/*", charts="*/notes.mid"
    )
    place = tmp_path / "music" / "a-game"
    place.parent.mkdir()
    recordings._unpack(deb, package, place)
    found = sorted(p.relative_to(place).as_posix() for p in place.rglob("*.ogg"))
    assert found == [
        "music/music__inside.ogg",
        "music/one__song.ogg",
        "music/two__song.ogg",
        "speech/voices__one__hello.ogg",
        "speech/voices__two__hello.ogg",
    ]
    assert (place / "charts/one__notes.mid").read_bytes() == b"MThd"
    assert (place / "copyright").read_text() == "CC0"
    with pytest.raises(UserError, match=r"has nothing under \*/none/\*"):
        recordings._unpack(deb, Package("a-game", "1", "", "CC0", "*/none/*"), place)
    spoken = Package("a-game", "1", "", "CC0", music="", speech="*/voices/one/*")
    recordings._unpack(deb, spoken, place)
    assert [path.name for path in place.rglob("*.ogg")] == ["voices__one__hello.ogg"]
    with pytest.raises(UserError, match=r"has nothing under \*/nobody/\*"):
        recordings._unpack(
            deb, Package("a-game", "1", "", "CC0", "", speech="*/nobody/*"), place
        )


def test_a_package_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="make music"):
        recordings.tracks(tmp_path, LEARN)


@pytest.fixture(scope="module")
def tracks(tmp_path_factory):
    """A song of noise that ends in a pause, a short one, and one that is none."""
    folder = tmp_path_factory.mktemp("songs")
    rng = np.random.default_rng(0)
    song = rng.normal(0, 0.01, 12 * RATE)
    song[8 * RATE :] *= 1e-4
    soundfile.write(folder / "long.wav", song, RATE)
    soundfile.write(folder / "short.wav", song[:RATE], RATE)
    (folder / "text.wav").write_text("no sound")
    return [
        Track("game", folder / name) for name in ("long.wav", "short.wav", "text.wav")
    ]


def test_excerpts_are_spread_over_a_song_at_one_level_and_without_pauses(
    tmp_path, tracks
):
    folder = tmp_path / "set"

    def write(**others):
        settings = {
            "seconds": 2.0,
            "spacing": 3.0,
            "most": 10,
            "seed": 1,
            "processes": 1,
        }
        excerpts.write_set(folder, tracks, **settings | others)

    write()
    found = RecordedSet(folder)
    # One of the four places is in the pause.
    assert len(found) == 3 == len(found.starts)
    assert found.starts == sorted(found.starts) and found.starts[-1] < 8
    assert np.diff(found.starts).min() > 0.3
    levels = found.heard(np.arange(3)).std(axis=1)
    np.testing.assert_allclose(levels, excerpts.LEVEL, rtol=0.02)
    assert {path.name for path in found.paths} == {"long.wav"}
    left_out = (folder / "set.json").read_text()
    assert "lasts 1.0 s" in left_out and "text.wav" in left_out
    before = (folder / "waveform.npy").read_bytes()
    write()
    assert (folder / "waveform.npy").read_bytes() == before
    with pytest.raises(UserError, match="other settings"):
        write(seed=2)


def test_a_set_without_a_song_is_refused(tmp_path, tracks):
    with pytest.raises(UserError, match="none of the 2 songs"):
        excerpts.write_set(
            tmp_path, tracks[1:], seconds=2.0, spacing=3.0, most=1, seed=0, processes=1
        )


def test_speech_and_noise_are_written_once(tmp_path, tracks):
    def write():
        return no_music.write(tmp_path, tracks[:2], clips=2, seconds=1.5, seed=3)

    made = write()
    assert [track.package for track in made] == ["noise"] * 2 + ["speech"] * 2
    sounds = [soundfile.read(track.path)[0] for track in made]
    assert all(len(sound) == 1.5 * RATE and sound.std() > 0 for sound in sounds)
    assert not np.array_equal(sounds[0], sounds[1])
    times = [track.path.stat().st_mtime_ns for track in made]
    assert [track.path.stat().st_mtime_ns for track in write()] == times
    with pytest.raises(UserError, match="no recording of speech"):
        no_music.speech(tracks[2:], 10, np.random.default_rng(0))


def test_speech_of_a_clip_is_one_voice_and_packages_count_alike(tmp_path):
    """Of a package with many recordings by two voices, and one with a single one."""
    heard = {"many__low": 200.0, "many__high": 600.0, "one__other": 1500.0}
    spoken = []
    for name, pitch in heard.items():
        sound = np.sin(2 * np.pi * pitch * np.arange(0.6 * RATE) / RATE)
        for number in range(9 if name.startswith("many") else 1):
            path = tmp_path / f"{name}__{number}.wav"
            soundfile.write(path, 0.5 * sound, RATE)
            spoken.append(Track(name.partition("__")[0], path))
    found = []
    for seed in range(40):
        clip = no_music.speech(spoken, 2 * RATE, np.random.default_rng(seed))
        power = np.square(np.abs(np.fft.rfft(clip * np.hanning(len(clip)))))
        at = {
            name: power[round(2 * pitch) - 40 : round(2 * pitch) + 40].sum()
            for name, pitch in heard.items()
        }
        best = max(at, key=lambda name: at[name])
        assert all(x < 0.05 * at[best] for name, x in at.items() if name != best)
        found.append(best)
    assert 10 < found.count("one__other") < 30
    assert set(found) == set(heard)


def test_silent_recordings_of_speech_are_not_spoken(tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    spoken = [Track("silence", tmp_path / "silence.wav")]
    with pytest.raises(UserError, match="silence: there is no recording of speech"):
        no_music.speech(spoken, 10, np.random.default_rng(0))


def logits(**probabilities):
    """Logits of both taggers: those tags, and all others as good as impossible."""
    found = np.full(len(pseudo_labels.COLUMNS), -9.0)
    for tag, probability in probabilities.items():
        name = tag.replace("_", "/", 1).replace("_", " ")
        found[pseudo_labels.COLUMNS.index(name)] = np.log(
            probability / (1 - probability)
        )
    return found


def test_only_what_the_taggers_are_sure_of_is_taken_for_known():
    known = pseudo_labels.facts(
        logits(MSD_metal=0.8, MTT_rock=0.5, MTT_guitar=0.2, MTT_loud=0.5, MTT_drums=0.6)
    )
    assert known["family"] == "metal" and known["drums"] == "drums"
    assert known["manner"] == "loud" and known["energy"] == "energetic"
    assert "guitar" not in known  # In between.
    assert known["piano"] == "no piano" and known["vocals"] == "no vocals"
    assert "family" not in pseudo_labels.facts(logits(MSD_metal=0.5, MTT_rock=0.45))
    assert "family" not in pseudo_labels.facts(logits(MSD_jazz=0.2))


def test_words_for_the_same_add_up():
    spread = logits(MTT_vocal=0.25, MTT_male_vocal=0.3, MTT_singing=0.2, MTT_voice=0.2)
    assert pseudo_labels.facts(spread)["vocals"] == "vocals"
    assert "vocals" not in pseudo_labels.facts(logits(MTT_vocal=0.25, MTT_voice=0.3))
    assert "piano" not in pseudo_labels.facts(logits(MTT_piano=0.3))


def test_a_family_is_taught_where_it_is_only_likely():
    between = logits(MSD_jazz=0.3, MTT_rock=0.25)
    assert "family" not in pseudo_labels.facts(between)
    assert pseudo_labels.facts(between, likely=True)["family"] == "jazz"
    assert "family" not in pseudo_labels.facts(logits(MSD_jazz=0.1), likely=True)


def test_a_key_is_taken_for_known_where_its_notes_sound():
    chroma = np.zeros((40, 12))
    chroma[:, [9, 11, 0, 2, 4, 5, 8]] = 0.3  # The harmonic minor scale of A.
    chroma[:, [9, 0, 4]] = 0.9
    assert pseudo_labels.key(chroma) == {"key": "A minor", "mode": "minor"}
    assert pseudo_labels.key(np.ones((40, 12))) == {}


def clicks(*, bpm, seconds=10):
    """A stroke on each beat, 16 bits."""
    sound = np.zeros(seconds * RATE, np.float32)
    for place in (np.arange(0.1, seconds - 0.1, 60 / bpm) * RATE).astype(int):
        sound[place : place + 400] = np.random.default_rng(0).normal(0, 0.3, 400)
    return np.round(sound * 32767).astype(np.int16)


def test_a_tempo_is_known_where_the_excerpts_of_a_song_agree():
    steady = np.stack([clicks(bpm=126), clicks(bpm=126), clicks(bpm=171)])
    found = tempi.correlations(steady, 1)
    bpm = tempi.tempi(found, ["a", "a", "a"], np.zeros(3))
    assert bpm[:2] == pytest.approx(126, rel=0.02)
    assert np.isnan(bpm[2])  # It does not show what the others show.
    alone = tempi.tempi(found, ["a", "a", "b"], np.zeros(3))
    assert min(abs(alone[2] / 171 - 1), abs(alone[2] / 85.5 - 1)) < 0.02
    said = pseudo_labels.beats(float(bpm[0]))
    assert said == {"beats": "128", "tempo": "medium"}


def test_energetic_music_is_counted_faster():
    found = tempi.correlations(clicks(bpm=83)[None], 1)
    calm, energetic = (
        tempi.tempi(found, ["a"], np.array([energy]))[0] for energy in (0.0, 1.0)
    )
    assert energetic >= calm


def test_silence_has_no_tempo():
    nothing = tempi.correlations(np.zeros((1, 10 * RATE), np.int16), 1)
    assert np.isnan(tempi.tempi(nothing, ["a"], np.zeros(1))).all()
    assert pseudo_labels.beats(float("nan")) == {}


def test_a_slowed_copy_is_lower_and_as_long():
    times = np.arange(2 * RATE) / RATE
    sine = np.sin(2 * np.pi * 1000 * times).astype(np.float32)
    slower = augmentation.slowed(sine, 0.5)
    assert slower.shape == sine.shape
    spectrum = np.abs(np.fft.rfft(slower * np.hanning(len(slower))))
    assert np.argmax(spectrum) / 2 == pytest.approx(500, abs=2)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_corpus_of_recordings_is_read_as_anybodys(tmp_path, tracks, split):
    folder = tmp_path / "set"
    excerpts.write_set(
        folder, tracks, seconds=2.0, spacing=6.0, most=2, seed=1, processes=1
    )
    recorded = RecordedSet(folder)
    facts = [
        {"sound": "music", "family": "rock", "drums": "no drums"},
        {"sound": "noise"},
    ]
    bpm = np.array([120.0, np.nan])[: len(recorded)]
    recorded_songs.write_corpus(
        tmp_path, recorded, facts[: len(recorded)], bpm, split=split, seed=4
    )
    records = songs.load(tmp_path)
    assert {record.split for record in records} == {split}
    facts = {(r.attribute, r.value) for r in records if r.attribute}
    assert ("family", "rock") in facts and ("drums", "no drums") in facts
    slower = [r for r in records if r.audio.parent.name == "slowed"]
    assert {r.attribute for r in slower} == (
        {"beats", "tempo", "sound"} if split == "train" else set()
    )
    first = [r for r in records if r.audio.name == "long.wav"]
    assert all(r.end - r.start == pytest.approx(2.0) for r in first)
    if split == "test":
        assert all(record.attribute for record in records)
    else:
        assert any(not record.question for record in records)
