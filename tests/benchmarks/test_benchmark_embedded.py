"""A benchmark with the embedded model, from the command line to the report."""

import json
import shutil

import pytest
from helpers import programs
from helpers.programs import ROOT

pytestmark = pytest.mark.slow
CLIPS = ROOT / "musilingo_jax/assets/musilingo-tiny-corpus/clips"


def benchmark(*words):
    done = programs.run("benchmark", *words)
    assert done.returncode == 0, done.stderr
    return done


def test_genres_by_three_rules_under_all_controls(tmp_path):
    audio, out = tmp_path / "audio", tmp_path / "out"
    audio.mkdir()
    for number in range(3):
        name = f"rock.{number:05}.ogg"
        shutil.copy(CLIPS / f"{number:05}.ogg", audio / name)
    names = tmp_path / "names.txt"
    names.write_text("".join(f"rock.{number:05}\n" for number in range(3)))
    words = ("gtzan", f"--data={names}", f"--audio={audio}", f"--out={out}")
    benchmark(*words)
    found = json.loads((out / "report.json").read_text())
    assert found["asked"] == 3 and not found["unscored"] and not found["failed"]
    lines = {line["label"]: line for line in found["scores"] if not line["group"]}
    likely = lines["accuracy, by likelihood"]
    assert set(likely["controls"]) == {
        "shuffled_audio",
        "noise",
        "silence",
        "no_audio",
    }
    answers = [
        json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()
    ]
    assert len(answers) == 3 * 5
    assert all(len(line["nats_per_token"]) == 10 for line in answers)
    # Without a song all songs are the same; with one, the genres' costs differ.
    for system, count in (("noise", 1), ("silence", 1), ("no_audio", 1), ("own", 3)):
        costs = {
            tuple(line["nats_per_token"]) for line in answers if line["heard"] == system
        }
        assert len(costs) == count, system
    before = (out / "report.md").read_bytes()
    benchmark(*words)
    assert (out / "report.md").read_bytes() == before
