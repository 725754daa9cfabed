"""The embedded model and corpus: what they promise, and the whole path on them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.small_run import load_config

import musilingo_jax
from musilingo_jax import train
from musilingo_jax.answering.model import Model
from musilingo_jax.corpora import fact_questions, songs, synthetic
from musilingo_jax.corpora.styles import ATTRIBUTES
from musilingo_jax.evaluation.evaluate_model import evaluate
from musilingo_jax.pretrained import embedded_models, weights
from musilingo_jax.recipes import cards, render, shipping
from musilingo_jax.recipes.config import RecipeConfig
from musilingo_jax.recipes.rendered_set import LABELS
from musilingo_jax.runtime import cli
from musilingo_jax.training import embedded

pytestmark = pytest.mark.medium

ASSETS = Path(musilingo_jax.__file__).parent / "assets"
PARTS = ("encoder", "language_model", "adapter")


def test_it_is_as_small_as_promised():
    def size(name):
        return sum(f.stat().st_size for f in (ASSETS / name).rglob("*") if f.is_file())

    assert all(size(name) <= 8e6 for name in embedded_models.names())
    assert size("musilingo-tiny-corpus") <= 4e6


@pytest.mark.parametrize("name", embedded_models.names())
@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_in_the_released_layout_with_a_card(name, part):
    folder = ASSETS / name / part
    assert {"config.json", "model.safetensors", "README.md"} <= {
        path.name for path in folder.iterdir()
    }


def test_the_parts_fit_together_by_the_loader_of_released_weights():
    mert = weights.load_encoder("musilingo-tiny/encoder", dtype="float32", mesh=None)
    llama = weights.load_language_model(
        "musilingo-tiny/language_model", dtype="float32", quantization="", mesh=None
    )
    adapter = weights.load_adapter("musilingo-tiny/adapter", mesh=None)
    assert adapter.bridge.projection.kernel.shape == (
        mert.config.hidden_size,
        llama.config.width,
    )
    tokenizer = weights.load_tokenizer("musilingo-tiny/language_model")
    assert tokenizer.size == llama.config.vocab


def test_the_corpus_is_what_its_card_says():
    records = songs.load("musilingo-tiny-corpus")
    clips = {record.clip: record.audio for record in records}
    assert 64 <= len(clips) <= 96
    for path in clips.values():
        info = soundfile.info(path)
        assert (info.format, info.subtype) == ("OGG", "VORBIS")
        assert info.duration == pytest.approx(10, abs=0.01)
    splits = {
        split: {r.clip for r in records if r.split == split}
        for split in ("train", "test")
    }
    assert not splits["train"] & splits["test"]
    assert splits["train"] | splits["test"] == set(clips)
    for clip in clips:
        asked = {r.attribute for r in records if r.clip == clip}
        assert asked == {None, *ATTRIBUTES}


@pytest.fixture(scope="module")
def recipe():
    return RecipeConfig.from_config(load_config("tiny_from_scratch").get_config())


def test_the_corpus_is_the_recipes_fifth_set(recipe):
    """Its pieces come from a seed that no other set of the recipe has."""
    found: dict[int, dict[str, str]] = {}
    for record in songs.load("musilingo-tiny-corpus"):
        if record.attribute:
            index = int(record.audio.stem)
            found.setdefault(index, {})[record.attribute] = record.value
    for index, labels in found.items():
        rng = np.random.default_rng([recipe.seed + 4, index])
        piece = synthetic.compose(rng, duration=recipe.render.seconds)
        assert labels == piece.labels()


def test_the_corpus_is_written_again_letter_by_letter(recipe, tmp_path, monkeypatch):
    """All of its text. The sound, which takes minutes, is silence here."""

    def silence(piece, soundfonts, *, sample_rate, **others):
        return np.zeros(sample_rate // 10, np.float32)

    monkeypatch.setattr(render, "render", silence)
    render.write_corpus(
        tmp_path,
        clips=recipe.corpus.clips,
        seed=recipe.seed + 4,
        soundfonts=["a", "b"],
        duration=recipe.render.seconds,
        test_share=recipe.corpus.test_share,
    )
    shipped = ASSETS / "musilingo-tiny-corpus/songs.jsonl"
    assert (tmp_path / "songs.jsonl").read_text() == shipped.read_text()


def test_the_cards_are_those_of_the_recipe(recipe):
    assert (
        cards.corpus_card(recipe)
        == (ASSETS / "musilingo-tiny-corpus/README.md").read_text()
    )
    model = ASSETS / shipping.MODEL
    assert cards.adapter_card(recipe) == (model / "adapter/README.md").read_text()
    # What the training found is only in the other two cards, so it is read from there.
    card = (model / "encoder/README.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", card, re.M)
    found = {
        "parameters": int(re.search(r"at ([\d,]+) param", card)[1].replace(",", "")),
        "values": {name: int(count) for name, count, _, _ in rows},
        "held_out": {name: float(share) for name, _, share, _ in rows},
        "unseen": {name: float(share) for name, _, _, share in rows},
        "excerpts": int(re.search(r"([\d,]+)\s+excerpts", card)[1].replace(",", "")),
        "sung": int(re.search(r"([\d,]+) excerpts to which", card)[1]),
        "agreement": {
            name: {"mean": float(mean), "shuffled": float(other)}
            for name, mean, other in re.findall(
                r"(\w+_musicnn)\s+(-?[\d.]+)\s+\((-?[\d.]+)\)", card
            )
        },
    }
    assert found["values"] == {name: len(v) for name, v in LABELS.items()}
    assert cards.encoder_card(recipe, found) == card
    # The language model was taken from an older model, and so was its card.
    start = recipe.language.start
    taken = {"taken": start, "card": (ASSETS / start / "README.md").read_text()}
    assert (
        cards.language_card(recipe, taken)
        == (model / "language_model/README.md").read_text()
    )
    assert weights.digest(model, "language_model") == weights.digest(
        ASSETS / start, "language_model"
    )


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """The cache of the embedded corpus, which is encoded once."""
    return str(tmp_path_factory.mktemp("features"))


@pytest.mark.slow
def test_the_shipped_adapter_hears(tmp_path, features):
    """On the held-out clips, above the same questions asked with other music."""
    config = load_config("tiny").get_config()
    config.run, config.features.cache = str(tmp_path / "run"), features
    folder, _ = evaluate(config, "musilingo-tiny/adapter", tmp_path / "out")
    report = json.loads((folder / "report.json").read_text())
    facts = {
        score["name"]: score
        for score in report["scores"]
        if score["section"] == "factual"
    }
    assert facts.keys() == ATTRIBUTES.keys() | {"key_exact", "key_published"}
    for attribute in ("style", "drums", "tempo", "key"):
        assert facts[attribute]["beats_controls"], attribute


@pytest.mark.slow  # `.ci/run` runs it.
def test_the_main_job_end_to_end(tmp_path, features):
    """Cache, two stages, an adapter that beats its control, an answer to a song."""
    config = load_config("tiny").get_config()
    config.run, config.features.cache = str(tmp_path / "run"), features
    config.stage1.steps, config.stage2.steps = 60, 40
    config.corpus.path = str(_asked_for_style_only(tmp_path))
    train.train(config)
    folder, _ = evaluate(config, None, None)
    report = json.loads((folder / "report.json").read_text())
    style = next(s for s in report["scores"] if s["name"] == "style")
    assert style["gains"]["shuffled_audio"]["low"] > 0
    chat = Model.load(str(tmp_path / "run"))
    song = songs.load("musilingo-tiny-corpus")[0].audio
    excerpt = chat.hear(song, start=None, seconds=30)
    answers = chat.ask(excerpt, ["What style of music is this?", "Describe the music."])
    assert all(answers)


def _asked_for_style_only(folder):
    """The embedded corpus, with no other test questions than those for the style."""
    path = folder / "corpus/songs.jsonl"
    shutil.copytree(ASSETS / "musilingo-tiny-corpus", path.parent)
    rows = [json.loads(line) for line in path.open()]
    kept = [r for r in rows if r["split"] == "train" or r.get("attribute") == "style"]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return path


def test_progress_says_rate_and_time_left(capsys):
    with cli.progress(total=10, unit="step", label="stage1", mininterval=0) as bar:
        bar.update(5)
    assert "stage1:  50%" in (printed := capsys.readouterr().err)
    assert "step/s" in printed or "s/step" in printed
    assert "<" in printed  # elapsed < left


def test_real_songs_and_noise_are_told_apart():
    """What is plain to hear in the embedded songs, the newest model says."""
    chat = Model.load("musilingo-tiny")
    noise = np.random.default_rng(1).normal(0, 0.1, 240_000).astype(np.float32)
    (said,) = chat.ask((noise, 24_000), ["Is this music?"])
    assert fact_questions.stated_value(said, "sound") == "noise"
    clips = songs.EMBEDDED["musilingo-tiny-songs"].parent / "clips"
    for name, energy in (("armygeddon", "energetic"), ("nightdream", "calm")):
        asked = ["Is this music?", "Is it energetic or calm?", "Is anyone singing?"]
        music, mood, singer = chat.ask(clips / f"{name}.ogg", asked)
        assert fact_questions.stated_value(music, "sound") == "music"
        assert fact_questions.stated_value(mood, "energy") == energy
        assert fact_questions.stated_value(singer, "vocals") == "no vocals"


def test_quiet_and_loud_copies_get_the_same_answers(tmp_path):
    chat = Model.load("musilingo-tiny")
    assert chat.usage.features == embedded.FEATURES
    records = [r for r in songs.load("musilingo-tiny-corpus") if r.question]
    clip = records[0].audio
    questions = [record.question for record in records if record.audio == clip]
    wave, rate = soundfile.read(clip, dtype="float32")

    def answers(gain):
        path = tmp_path / "copy.wav"
        soundfile.write(path, wave * np.float32(gain), rate, subtype="FLOAT")
        return chat.ask(chat.hear(path, start=None, seconds=30), questions)

    expected = answers(1.0)
    assert len(set(expected)) > 4
    for gain in (0.05, 0.5, 2.5):
        assert answers(gain) == expected, gain
