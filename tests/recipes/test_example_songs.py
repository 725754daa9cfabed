"""The excerpts of real songs: which are taken, and what stands beside them."""

import json

import numpy as np
import pytest
import soundfile

from musilingo_jax.corpora import songs
from musilingo_jax.corpora.facts import FACTS
from musilingo_jax.recipes import example_songs, packages
from musilingo_jax.recipes.excerpts import RecordedSet
from musilingo_jax.recipes.soundfont import SAMPLE_RATE
from musilingo_jax.runtime.errors import UserError

EMBEDDED = songs.EMBEDDED["musilingo-tiny-songs"].parent


@pytest.fixture
def music(tmp_path):
    """The lists of licences of the packages."""
    for package in example_songs.CHOSEN:
        (tmp_path / "music" / package).mkdir(parents=True)
        (tmp_path / f"music/{package}/copyright").write_text(f"{package} ©\n", "utf-8")
    return tmp_path / "music"


def recorded_set(folder, chosen):
    """A set of a second of noise for each of some songs, and one that is not taken."""
    rows = [("wesnoth-1.16-music", "music__battle.ogg"), *chosen]
    noise = np.random.default_rng(0).normal(0, 3000, (len(rows), SAMPLE_RATE))
    folder.mkdir()
    np.save(folder / "waveform.npy", noise.astype(np.int16))
    described = [{"package": p, "path": f"/{p}/{s}", "start": 2.0} for p, s in rows]
    (folder / "set.json").write_text(json.dumps({"excerpts": described}))
    return RecordedSet(folder)


def all_chosen():
    return [(p, s) for p, names in example_songs.CHOSEN.items() for s in names.values()]


def test_each_clip_has_its_sound_its_answers_its_author_and_its_licence(
    tmp_path, music
):
    recorded = recorded_set(tmp_path / "set", all_chosen())
    facts = [{"sound": "music"}] + [
        {"sound": "music", "drums": "drums" if n % 2 else "no drums"}
        for n in range(len(recorded) - 1)
    ]
    out = tmp_path / "out"
    example_songs.write(out, music, recorded, facts, seed=1)
    card = (out / "README.md").read_text("utf-8")
    records = songs.load(str(out))
    names = [n for of in example_songs.CHOSEN.values() for n in of]
    assert len(names) == len(set(names)) == len(recorded) - 1
    for place, name in enumerate(names, 1):
        heard, rate = soundfile.read(out / f"clips/{name}.ogg")
        assert rate == SAMPLE_RATE and len(heard) == SAMPLE_RATE
        alike = np.corrcoef(heard, recorded.heard(place))[0, 1]
        assert alike > 0.7  # Noise, through a lossy codec.
        said = {r.attribute: r.value for r in records if r.audio.stem == name}
        assert said == facts[place]
        assert f"| {name} | " in card
    for package, author in example_songs.AUTHORS.items():
        licence = out / f"licences/{package}.txt"
        assert licence.read_text("utf-8") == f"{package} ©\n"
        assert author in card and package in card


def test_a_set_without_a_chosen_song_is_refused(tmp_path, music):
    recorded = recorded_set(tmp_path / "set", all_chosen()[1:])
    facts = [{"sound": "music"}] * len(recorded)
    with pytest.raises(UserError, match="no excerpt of .*muldjord's armygeddon__song"):
        example_songs.write(tmp_path / "out", music, recorded, facts, seed=1)


def test_only_songs_that_may_be_shipped_and_were_left_out_are_chosen():
    known = {package.name: package for package in packages.PACKAGES}
    assert example_songs.CHOSEN.keys() == example_songs.AUTHORS.keys()
    for name in example_songs.CHOSEN:
        assert known[name].role == packages.LEFT_OUT
        assert known[name].licence == "CC-BY-SA-3.0"


def test_the_embedded_songs_are_those_with_licences_and_a_card():
    names = {n for of in example_songs.CHOSEN.values() for n in of}
    records = songs.load("musilingo-tiny-songs")
    assert {record.audio.stem for record in records} == names
    assert {path.stem for path in (EMBEDDED / "clips").iterdir()} == names
    for record in records:
        assert record.value in FACTS[record.attribute]
    licences = {path.stem for path in (EMBEDDED / "licences").iterdir()}
    assert licences == example_songs.CHOSEN.keys()
    for path in (EMBEDDED / "licences").iterdir():
        text = path.read_text("utf-8").lower()
        assert "attribution" in text and "share" in text
    size = sum(f.stat().st_size for f in EMBEDDED.rglob("*") if f.is_file())
    assert size <= 2.5e6
    card = (EMBEDDED / "README.md").read_text("utf-8")
    assert all(f"| {name} | " in card for name in names)
