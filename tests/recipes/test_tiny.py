"""The whole recipe, in small and with sines, and in its quick form with soundfonts."""

import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from helpers import sine_soundfont
from helpers.small_run import ROOT, load_config

import musilingo_jax
from musilingo_jax.annotation import tags
from musilingo_jax.answering.model import Model
from musilingo_jax.corpora import songs
from musilingo_jax.corpora.styles import ATTRIBUTES
from musilingo_jax.pretrained import weights
from musilingo_jax.recipes import (
    language_stage,
    notes,
    recordings,
    shipping,
    soundfont,
    teacher_outputs,
    tiny,
)
from musilingo_jax.recipes.config import RecipeConfig
from musilingo_jax.recipes.stage_log import StageLog
from musilingo_jax.runtime.errors import UsageError, UserError

pytestmark = pytest.mark.medium

ASSETS = Path(musilingo_jax.__file__).parent / "assets"
PARTS = ("encoder", "language_model", "adapter")
STAGES = ["sets", "recordings", "teachers", "encoder 1 of 2", "encoder 2 of 2"]
STAGES += ["encoder", "language", "songs", "adapter", "corpus"]
SOUNDFONTS = ROOT / "build/soundfonts"


def smallest(work):
    """The quick form with models, sets and texts as small as they can be."""
    config = load_config("tiny_from_scratch").get_config("quick")
    config.work = str(work)
    config.render.update(clips=4, held_out_clips=4, seconds=2.0)
    config.encoder.model.update(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8, 8),
        conv_kernel=(32, 60),
        conv_stride=(16, 60),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4,
    )
    config.encoder.recipe.update(steps=2, warmup_steps=1, batch_size=4)
    config.encoder.recipe.recorded_batch_size = 2
    config.recordings.update(songs=2, no_music=1, sung=1, spacing=3.0)
    config.language.read_pieces = 2
    config.language.model.update(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=32,
    )
    config.language.recipe.update(pieces=20, recordings=20, steps=2, warmup_steps=1)
    config.language.recipe.update(short_share=1.0, short_rows=4)  # One shape.
    experiment = config.adapter.train
    config.adapter.clips = 4
    config.encoder.recipe.window_frames = experiment.features.window_frames = 20
    experiment.mesh.data = 1
    for stage in (experiment.stage1, experiment.stage2):
        stage.update(steps=1, warmup_steps=0, batch_size=4)
    config.corpus.clips = 3
    return config


@pytest.fixture
def run(monkeypatch):
    """The program with the player of sines: a config, and the folder of soundfonts."""

    def run(config, fonts, *, install=False):
        given = types.SimpleNamespace(
            config=config,
            soundfonts=str(fonts),
            music=str(fonts / "music"),
            teachers=str(fonts / "teachers"),
            install=install,
        )
        monkeypatch.setattr(tiny, "flags", types.SimpleNamespace(FLAGS=given))
        tiny.main(["tiny"])

    monkeypatch.setitem(sys.modules, "tinysoundfont", sine_soundfont.stand_in())
    # In this process: others would not have the stand-in.
    monkeypatch.setattr(tiny, "os", types.SimpleNamespace(cpu_count=lambda: 1))
    yield run
    soundfont._soundfont.cache_clear()


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def check_model(folder, corpus):
    """That the parts load, fit each other, and answer a question about a song."""
    for part in PARTS:
        assert (
            (folder / part / "README.md").read_text().startswith("# musilingo-tiny-5 /")
        )
    assert json.loads((folder / "config.json").read_text())["model"] == {
        "pretrained": "musilingo-tiny-5",
        "adapter": "",
        "encoder": "",
        "language_model": "",
        "dtype": "float32",
        "quantization": "",
    }
    mert = weights.load_encoder(folder / "encoder", dtype="float32", mesh=None)
    llama = weights.load_language_model(
        folder / "language_model", dtype="float32", quantization="", mesh=None
    )
    adapter = weights.load_adapter(folder / "adapter", mesh=None)
    assert adapter.bridge.projection.kernel.shape == (
        mert.config.hidden_size,
        llama.config.width,
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((mert, llama)))
    assert "# musilingo-tiny-corpus" in (corpus / "README.md").read_text()
    assert {record.attribute for record in songs.load(corpus)} == {None, *ATTRIBUTES}


@pytest.fixture
def music(monkeypatch):
    """Writes packages of music and speech, and stands in for the teachers."""

    def write(folder):
        rng = np.random.default_rng(0)
        for package in recordings.PACKAGES:
            place = folder / package.name
            (place / "charts").mkdir(parents=True)
            for kind in ("music", "speech"):
                (place / kind).mkdir()
            (place / "complete").write_text("1 songs\n")
            if package.name in ("ardentryst", "supertux-data", "wesnoth-1.16-music"):
                sound = rng.normal(0, 0.1, 5 * soundfont.SAMPLE_RATE)
                soundfile.write(place / "music/a.wav", sound, soundfont.SAMPLE_RATE)
            if package.speech:
                sound = rng.normal(0, 0.1, soundfont.SAMPLE_RATE)
                soundfile.write(place / "speech/b.wav", sound, soundfont.SAMPLE_RATE)

    def tags(waveform, wheel, folder):
        rng = np.random.default_rng(len(waveform))
        count = len(teacher_outputs.TAG_NAMES) + 2 * teacher_outputs.FEATURES
        return rng.normal(0, 3, (len(waveform), count)).astype(np.float32)

    def chroma(waveform, wheel, folder, *, frames, frames_per_second):
        return np.full((len(waveform), frames, 12), 0.5, np.float32)

    monkeypatch.setattr(teacher_outputs, "heard_by_taggers", tags)
    monkeypatch.setattr(notes, "chroma", chroma)
    return write


def test_the_recipe_makes_a_model_and_a_corpus_and_installs_them(
    tmp_path, monkeypatch, capsys, run, music, quick_to_compile
):
    work, fonts, assets = (tmp_path / name for name in ("work", "fonts", "assets"))
    config = smallest(work)
    music(fonts / "music")
    known = config.render.training_soundfonts + config.render.more_soundfonts
    names = (*known, config.render.unseen_soundfont)
    for partials, name in enumerate(names, start=1):
        sine_soundfont.write(fonts / name, partials)
    # A scratch copy stands for the package, with old files that must go.
    monkeypatch.setattr(tiny, "ASSETS", assets)
    (assets / "musilingo-tiny-5/adapter").mkdir(parents=True)
    (assets / "musilingo-tiny-5/adapter/old.safetensors").write_bytes(b"old")
    shipped = files_of(ASSETS)

    run(config, fonts, install=True)
    printed = capsys.readouterr().out
    assert [line[3:] for line in printed.splitlines() if line[3:] in STAGES] == STAGES
    log = json.loads((work / "log.json").read_text())
    assert list(log) == STAGES
    assert {"held_out", "unseen", "agreement"} <= log["encoder"].keys()
    assert {"mean", "shuffled", "guitar"} <= (
        log["encoder"]["agreement"]["MTT_musicnn"].keys()
    )
    assert {*ATTRIBUTES, "unsure", "beats"} <= set(log["language"]["reads"])
    for part in PARTS:
        assert f"{part}: {weights.digest(work / 'model', part)}" in printed
    assert f"{log['encoder']['parameters']:,} parameters" in (
        (work / "model/encoder/README.md").read_text()
    )
    # Training began at the ridge start and moved on from there.
    first, last = (
        weights.load_adapter(folder, mesh=None)
        for folder in (work / "start", work / "model/adapter")
    )
    moved = np.abs(
        first.bridge.projection.kernel[...] - last.bridge.projection.kernel[...]
    )
    assert 0 < moved.max() < 0.01
    check_model(work / "model", work / "corpus")

    assert files_of(assets / "musilingo-tiny-5") == files_of(work / "model")
    assert files_of(assets / "musilingo-tiny-corpus") == files_of(work / "corpus")
    assert {path.name for path in assets.iterdir()} == {
        "musilingo-tiny-5",
        "musilingo-tiny-corpus",
    }
    assert files_of(ASSETS) == shipped

    # As a user would use it.
    chat = Model.load(str(work / "adapter"))
    song = next((work / "corpus").glob("clips/*.ogg"))
    excerpt = chat.hear(song, start=None, seconds=30)
    (answer,) = chat.ask(excerpt, ["What style of music is this?"])
    assert isinstance(answer, str)


@pytest.mark.slow
def test_the_quick_recipe_as_a_user_runs_it_with_real_soundfonts(tmp_path):
    pytest.importorskip(
        "tinysoundfont", reason="pip install --no-deps tinysoundfont==0.3.7"
    )
    config = load_config("tiny_from_scratch").get_config("quick")
    known = config.render.training_soundfonts + config.render.more_soundfonts
    needed = [SOUNDFONTS / name for name in (*known, config.render.unseen_soundfont)]
    needed += [ROOT / "build/music/widelands-data/complete"]
    needed += [ROOT / "build/teachers" / wheel for wheel in (tags.WHEEL, notes.WHEEL)]
    for path in needed:
        if not path.is_file():
            pytest.skip(f"{path}: `make soundfonts music teachers` puts it there")
    pytest.importorskip("onnxruntime", reason="pip install onnxruntime==1.32.0")
    # A package of its own, because the last thing that the recipe does is change it.
    package = tmp_path / "musilingo_jax"
    shutil.copytree(
        ROOT / "musilingo_jax", package, ignore=shutil.ignore_patterns("__pycache__")
    )
    before = files_of(package / "assets")
    command = [
        sys.executable,
        "-m",
        "musilingo_jax.recipes.tiny",
        f"--config={ROOT}/configs/tiny_from_scratch.py:quick",
        f"--config.work={tmp_path}/work",
        f"--soundfonts={SOUNDFONTS}",
        f"--music={ROOT}/build/music",
        f"--teachers={ROOT}/build/teachers",
        "--install",
    ]
    # Before all else, so that it is this package that is imported.
    path = os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split()])
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    log = json.loads((tmp_path / "work/log.json").read_text())
    assert list(log) == STAGES
    after = files_of(package / "assets")
    assert after != before
    assert {name.split("/")[0] for name in after} == {
        "musilingo-tiny-1",
        "musilingo-tiny-5",
        "musilingo-tiny-corpus",
        "musilingo-tiny-songs",
    }
    # The released layout: the same files as those of the model before.
    layout, made = (
        {path.split("/", 1)[1] for path in after if path.startswith(name)}
        for name in ("musilingo-tiny-1", "musilingo-tiny-5")
    )
    assert layout == made
    check_model(
        package / "assets/musilingo-tiny-5", package / "assets/musilingo-tiny-corpus"
    )
    for part in PARTS:
        ours = weights.digest(package / "assets/musilingo-tiny-5", part)
        assert f"{part}: {ours}" in done.stdout


def test_a_language_model_that_can_say_it_all_is_taken_as_it_is(tmp_path):
    config = load_config("tiny_from_scratch").get_config("quick")
    config.work, config.language.read_pieces = str(tmp_path), 2
    start = config.language.recipe.start = "musilingo-tiny-1/language_model"
    with pytest.raises(UserError, match="recipe.start is musilingo-tiny-1/language_m"):
        language_stage.make(RecipeConfig.from_config(config))  # It is smaller.
    start = config.language.recipe.start = "musilingo-tiny-2/language_model"
    found = language_stage.make(RecipeConfig.from_config(config))
    assert found["taken"] == start and "language model" in found["card"]
    assert found["reads"]["sound"] > 0.5
    made, taken = files_of(tmp_path / "model/language_model"), files_of(ASSETS / start)
    assert made == {name: taken[name] for name in taken if name != "README.md"}


def test_the_folder_of_the_work_can_be_chosen():
    config = load_config("tiny_from_scratch").get_config("quick")
    config.work = "elsewhere"
    train = config.adapter.train
    assert train.run == "elsewhere/adapter"
    assert train.features.cache == "elsewhere/adapter/cache"
    assert train.model.encoder == "elsewhere/model/encoder"
    assert train.model.language_model == "elsewhere/model/language_model"
    assert train.model.adapter == "elsewhere/start"
    paths = [member.path for member in train.corpus.mixture.values()]
    assert paths == [
        "elsewhere/songs/songs.jsonl",
        "elsewhere/recorded_songs/songs.jsonl",
    ]


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("render.clips", 0, "config.render.clips is 0: it must be at least 1"),
        (
            "render.clips",
            11,
            "config.render.clips is 11: it must be at least config.en",
        ),
        ("render.held_out_clips", 11, "config.render.held_out_clips is 11"),
        ("render.training_soundfonts", (), "need one entry at least"),
        (
            "encoder.recipe.steps",
            1,
            "encoder.recipe.warmup_steps is 1: it must be less",
        ),
        ("encoder.recipe.parts", 3, "config.encoder.recipe.parts is 3: it must be at"),
        ("encoder.recipe.weight_decay", -1.0, "recipe.weight_decay is -1.0"),
        ("language.recipe.warmup_steps", 4, "language.recipe.warmup_steps is 4"),
        (
            "language.recipe.keep",
            (0.5, 1.5),
            "recipe.keep is (0.5, 1.5): it must be at",
        ),
        ("language.recipe.keep", (), "need one entry at least"),
        ("adapter.shrinkage", 0.0, "config.adapter.shrinkage is 0.0: it must be above"),
        ("adapter.clip", 3, "config.adapter has clip, which nothing reads"),
        ("adapter.train.stage2.steps", 0, "config.adapter.train: config.stage2.steps"),
        ("corpus.test_share", 2.0, "config.corpus.test_share is 2.0: it must be"),
    ],
)
def test_a_wrong_config_is_refused_before_anything_is_made(
    tmp_path, run, key, value, message
):
    config = smallest(tmp_path / "work")
    config.encoder.recipe.batch_size = 12
    config.render.update(clips=12, held_out_clips=12)
    *sections, last = key.split(".")
    section = config
    for name in sections:
        section = section[name]
    with section.unlocked(), section.ignore_type():
        section[last] = value
    with pytest.raises(UserError) as refused:
        run(config, tmp_path)
    assert message in str(refused.value)
    assert not (tmp_path / "work").exists()


def test_a_command_without_its_config_or_with_too_much_is_refused(run, tmp_path):
    with pytest.raises(UsageError, match="give --config=configs/tiny_from_scratch.py"):
        run(None, tmp_path)
    other = load_config("tiny").get_config()
    with pytest.raises(
        UserError, match="config lacks work, render, recordings, encoder"
    ):
        run(other, tmp_path)
    with pytest.raises(UsageError, match="unknown argument 'again'"):
        tiny.main(["tiny", "again"])


def test_a_missing_soundfont_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.sf2.*make soundfonts"):
        tiny.soundfonts(tmp_path, ("nowhere.sf2",))


def test_an_installation_that_fails_leaves_what_was_there(tmp_path):
    assets = tmp_path / "assets"
    (assets / "musilingo-tiny-5").mkdir(parents=True)
    (assets / "musilingo-tiny-5/config.json").write_text("{}")
    with pytest.raises(FileNotFoundError):
        shipping.install(tmp_path / "nothing was made", assets)
    assert (assets / "musilingo-tiny-5/config.json").read_text() == "{}"


def test_the_log_adds_up_interrupted_stages(tmp_path):
    log = StageLog(tmp_path / "log.json")
    with pytest.raises(KeyboardInterrupt), log.stage("songs"):
        raise KeyboardInterrupt
    first = log.read()["songs"]["seconds"]
    with log.stage("songs"):
        log.note("songs", {"clips": 3})
    assert log.read()["songs"]["seconds"] > first
    assert log.read()["songs"]["clips"] == 3


def test_the_quick_form_is_the_same_recipe_in_small():
    """A key of one form is a key of the other, so the quick one tries them all."""

    def keys(section, path=""):
        for key, value in section.items():
            if hasattr(value, "items"):
                yield from keys(value, f"{path}{key}.")
            else:
                yield f"{path}{key}"

    get_config = load_config("tiny_from_scratch").get_config
    whole, quick, scratch = get_config(), get_config("quick"), get_config("scratch")
    assert list(keys(whole)) == list(keys(quick)) == list(keys(scratch))
    for config in (whole, quick, scratch):
        RecipeConfig.from_config(config)
