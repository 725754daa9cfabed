"""Runs of `musilingo_jax.benchmark` with a fake model, as tests of benchmarks do."""

import functools
import json

import soundfile

from helpers import fake_ears
from musilingo_jax import benchmark
from musilingo_jax.benchmarks import asking
from musilingo_jax.captioning.asker import Sources


def pretend(monkeypatch, ears):
    """Has a fake model answer in place of the one that the command line names."""

    def load(sources):
        return functools.partial(asking.rows, asking.Ears(ears))

    monkeypatch.setattr(asking, "load", load)
    monkeypatch.setattr(Sources, "identity", lambda sources: {"adapter": "7f"})
    monkeypatch.setattr(benchmark, "_SHARD", 2)
    return ears


def sing(folder, *names):
    """Writes a short song for each name; the first is number 1."""
    for number, name in enumerate(names, 1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, fake_ears.tone(number), fake_ears.RATE)


def run(name, data, audio, out, *words):
    given = [name, f"--data={data}", f"--audio={audio}", f"--out={out}", *words]
    benchmark.main(benchmark.parser().parse_args(given))


def report(out):
    return json.loads((out / "report.json").read_text())


def percent(out, label, system="own", group=""):
    """A score of a report, in percent."""
    for line in report(out)["scores"]:
        if (line["label"], line["group"]) == (label, group):
            found = line["own"] if system == "own" else line["controls"][system]
            return round(100 * found["value"], 1)
    raise KeyError(label)
