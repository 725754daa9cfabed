"""What is asked about recordings: how often, and about which seconds of them."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from musilingo_jax.corpora import fact_questions
from musilingo_jax.corpora.facts import UNSURE
from musilingo_jax.recipes import recorded_songs
from musilingo_jax.recipes.soundfont import SAMPLE_RATE
from musilingo_jax.runtime.errors import UserError

EXCERPTS = 5000


@pytest.fixture
def answers_about(monkeypatch):
    """The short answers about a fact that is not known, of so many excerpts."""

    def answers(fact: str, known: dict[str, str]) -> list[str]:
        monkeypatch.setattr(fact_questions, "ASKED_OF_RECORDINGS", (fact,))
        monkeypatch.setattr(fact_questions, "long", lambda known, rng: [])
        rng = np.random.default_rng(0)
        rows = [
            row for _ in range(EXCERPTS) for row in recorded_songs.taught(known, rng)
        ]
        assert not any("attribute" in row for row in rows)
        return [str(row["answer"]) for row in rows if "question" in row]

    return answers


@pytest.mark.parametrize(
    "fact, share", [("drums", 0.02), ("beats", 0.02), ("key", 0.08), ("lead", 0.08)]
)
def test_a_share_of_what_cannot_be_told_is_asked(answers_about, fact, share):
    answers = answers_about(fact, {"sound": "music"})
    assert set(answers) == {f"{UNSURE}."}
    # Three standard deviations of a binomial share.
    spread = 3 * (share * (1 - share) / EXCERPTS) ** 0.5
    assert abs(len(answers) / EXCERPTS - share) < spread


def test_half_of_what_is_asked_of_speech_is_answered_by_what_it_is(answers_about):
    answers = answers_about("drums", {"sound": "speech"})
    assert all("speech" in answer and UNSURE not in answer for answer in answers)
    assert abs(len(answers) / EXCERPTS - 0.5) < 0.025


@pytest.fixture
def song(tmp_path):
    """A minute, of which two excerpts of ten seconds are a set."""
    path = tmp_path / "song.flac"
    noise = np.random.default_rng(0).normal(0, 0.1, 60 * SAMPLE_RATE)
    soundfile.write(path, noise, SAMPLE_RATE)
    waveform = np.zeros((2, 10 * SAMPLE_RATE), np.int16)
    return SimpleNamespace(
        paths=[path, path],
        starts=[30.0, 49.0],
        waveform=waveform,
        heard=lambda row: waveform[row].astype(np.float32) / 32768,
    )


def stretches(folder: Path, song, split: str, seed: int) -> list[tuple[float, float]]:
    """Begin and end of what is asked about, of each excerpt."""
    known = [{"sound": "music", "drums": "drums"}] * 2
    recorded_songs.write_corpus(
        folder, song, known, np.full(2, np.nan), split=split, seed=seed
    )
    lines = (folder / "songs.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "start" in row]
    return list(dict.fromkeys((row["start"], row["end"]) for row in rows))


def test_what_is_learnt_from_is_near_what_the_teachers_heard(tmp_path, song):
    drawn = [stretches(tmp_path / str(n), song, "train", n) for n in range(12)]
    begins = np.array([[begin for begin, _ in each] for each in drawn])
    ends = np.array([[end for _, end in each] for each in drawn])
    np.testing.assert_allclose(ends - begins, 10, atol=2e-3)
    assert (np.abs(begins[:, 0] - 30) <= 8).all() and np.ptp(begins[:, 0]) > 4
    # The song ends before the second could begin any later.
    assert begins[:, 1].max() == pytest.approx(49.9, abs=2e-3)
    assert begins[:, 1].min() >= 41


def test_a_song_that_is_gone_is_named(tmp_path, song):
    song.paths[1].unlink()
    with pytest.raises(UserError, match=r"song\.flac cannot be read any more"):
        stretches(tmp_path / "train", song, "train", 1)


def test_what_is_measured_with_is_what_the_teachers_heard(tmp_path, song):
    assert stretches(tmp_path / "test", song, "test", 1) == [(30, 40), (49, 59)]


def test_rarer_families_are_asked_for_more_often(tmp_path, song):
    families = ["electronic"] * 12 + ["jazz"] * 3 + ["rock"]
    song.paths, song.starts = song.paths[:1] * 16, [30.0] * 16
    known = [{"sound": "music", "family": family} for family in families]
    recorded_songs.write_corpus(
        tmp_path / "corpus", song, known, np.full(16, np.nan), split="train", seed=1
    )
    lines = (tmp_path / "corpus" / "songs.jsonl").read_text().splitlines()
    values = [json.loads(line).get("value") for line in lines]
    asked = {family: values.count(family) for family in set(families)}
    assert asked == {"electronic": 12, "jazz": 3 * 2, "rock": 3}
