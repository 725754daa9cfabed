"""What a model says of recordings, measured with songs that the test writes itself."""

import json
import struct

import numpy as np
import pytest
import soundfile
from helpers.small_run import load_config

from musilingo_jax.corpora import songs
from musilingo_jax.pretrained import embedded_models
from musilingo_jax.recipes import (
    charts,
    confidence,
    measure,
    notes,
    recordings,
    teacher_outputs,
)
from musilingo_jax.recipes.confidence import Judged
from musilingo_jax.recipes.measured_songs import FILE_FACTS, TEACHERS, VOICES
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium

RATE = 24_000


def chart(*tempi):
    """A MIDI file that keeps each tempo for some quarters, with notes between."""
    track = b""
    for bpm, quarters in tempi:
        track += b"\x00\xff\x51\x03" + round(60e6 / bpm).to_bytes(3, "big")
        for _ in range(quarters):
            track += b"\x00\x90\x3c\x40" + b"\x83\x60\x3c\x00"  # 480 ticks; running.
    track += b"\x00\xff\x2f\x00"
    head = struct.pack(">4sIHHh", b"MThd", 6, 1, 1, 480)
    return head + struct.pack(">4sI", b"MTrk", len(track)) + track


def test_the_tempo_of_a_chart_is_that_which_it_keeps_for_longest(tmp_path):
    path = tmp_path / "notes.mid"
    path.write_bytes(chart((90, 4), (170, 40), (100, 4)))
    assert charts.bpm_of(path) == pytest.approx(170, rel=1e-4)
    path.write_bytes(b"RIFF")
    with pytest.raises(UserError, match="not a MIDI file"):
        charts.bpm_of(path)


def test_answers_are_counted_by_their_confidence(tmp_path):
    judged = Judged(
        answers=["It is rock."] * 5,
        named=np.array([True, True, True, True, False]),
        right=np.array([True, False, True, True, False]),
        confidence=np.array([0.6, 0.6, 1.0, 0.95, 0.0]),
    )
    rows = confidence.table(judged)
    assert [row["answers"] for row in rows] == [0, 2, 0, 2]
    assert rows[1]["right"] == 0.5 and rows[3]["right"] == 1.0
    confidence.plot(rows, tmp_path / "reliability.svg")
    assert "<svg" in (tmp_path / "reliability.svg").read_text()


@pytest.fixture
def music(tmp_path, monkeypatch):
    """Packages with songs and speech; what the teachers say is drawn from a seed."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "music"
    names = {
        "fretsonfire-songs-muldjord": "one__song.wav",
        "unknown-horizons": "music__Peer Gynt Suite No. 1, Op. 46 - I. Morning.wav",
        "supertux-data": "forest__theme.wav",
    }
    for package in recordings.PACKAGES:
        if package.role == recordings.LEARN:
            continue
        place = folder / package.name
        for kind in ("music", "speech", "charts"):
            (place / kind).mkdir(parents=True)
        (place / "complete").write_text("1 songs\n")
        if package.name in names:
            sound = rng.normal(0, 0.1, 12 * RATE)
            soundfile.write(place / "music" / names[package.name], sound, RATE)
        if package.speech:
            soundfile.write(place / "speech/a.wav", rng.normal(0, 0.1, RATE), RATE)
    place = folder / "fretsonfire-songs-muldjord/charts/one__notes.mid"
    place.write_bytes(chart((150, 30)))

    def tags(waveform, wheel, folder):
        rng = np.random.default_rng(1)
        count = len(teacher_outputs.TAG_NAMES) + 2 * teacher_outputs.FEATURES
        return rng.normal(0, 4, (len(waveform), count)).astype(np.float32)

    def chroma(waveform, wheel, folder, *, frames, frames_per_second):
        return np.full((len(waveform), frames, 12), 0.5, np.float32)

    monkeypatch.setattr(teacher_outputs, "heard_by_taggers", tags)
    monkeypatch.setattr(notes, "chroma", chroma)
    return folder


@pytest.mark.slow  # `.ci/run` runs it.
def test_a_model_is_measured_on_what_others_say_of_songs(tmp_path, music):
    config = load_config("real_songs").get_config("quick")
    config.run = str(tmp_path / "run")
    config.measure.work = str(tmp_path / "measured")
    config.measure.gains = (0.05,)
    config.mesh.data = 1
    embedded_models.settle(config)
    log = tmp_path / "log.json"
    agreed = {"MTT_musicnn": {"guitar": 0.7, "mean": 0.7, "shuffled": 0.0}}
    log.write_text(json.dumps({"encoder": {"agreement": agreed}}))
    folder = measure.measure(config, music=music, packages=tmp_path, log=log)

    facts = songs.load(tmp_path / "measured" / FILE_FACTS)
    tempi = [float(r.value) for r in facts if r.attribute == "bpm"]
    assert tempi == pytest.approx([150, 127.5, 105, 82.5], abs=0.1)
    assert [r.value for r in facts if r.attribute == "key"] == ["E major"]
    agreement = songs.load(tmp_path / "measured" / TEACHERS)
    assert {"speech", "noise", "music"} <= {r.value for r in agreement}

    voices = songs.load(tmp_path / "measured" / VOICES)
    assert {r.attribute for r in voices} == {"vocals"}
    assert (tmp_path / "measured" / VOICES / "clips/00000.flac").is_file()

    found = json.loads((folder / "real_songs.json").read_text())
    assert {"tempo_acc1", "tempo_acc2", "key"} <= found[FILE_FACTS].keys()
    assert "sound" in found[TEACHERS] and "vocals" in found[VOICES]
    assert 0 <= found["gain"]["0.05"]["cut off"] <= 1
    assert len(found["shown"]) == 2
    assert sum(row["answers"] for row in found["confidence"]["bins"]) > 0
    report = (folder / "real_songs.md").read_text()
    assert "guitar 0.70" in report and "Confidence against" in report
    assert (folder / "reliability.svg").is_file()
