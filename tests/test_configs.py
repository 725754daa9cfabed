"""Every config builds, fits its readers, and traces at the size of the real models."""

import ast
import functools
import re
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from absl import flags
from flax import nnx
from helpers import commands
from helpers.released_configs import MERT_330M, VICUNA_7B_V0
from helpers.small_run import ROOT, load_config
from ml_collections import config_flags

from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.audio import features
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.corpora import build
from musilingo_jax.models.llama_config import LlamaConfig
from musilingo_jax.models.lora import MapSizes, Tuning
from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.models.parts import Parts, divided
from musilingo_jax.plan import model_shapes
from musilingo_jax.pretrained import weights
from musilingo_jax.pretrained.model_config import ModelConfig
from musilingo_jax.pretrained.number_type import AUTO
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh, shardings
from musilingo_jax.training import starting
from musilingo_jax.training.run_folder import RunFolder
from musilingo_jax.training.stage_config import StageConfig
from musilingo_jax.training.train_step import TrainState, abstract_batch, make_update

pytestmark = pytest.mark.medium

# The recipe of the embedded model is another kind of experiment.
FILES = sorted(
    path.stem
    for path in (ROOT / "configs").glob("*.py")
    if hasattr(load_config(path.stem).get_config(), "stages")
)
# With what stands after the colon.
NAMES = [
    *FILES,
    "finetune_music_instruct:long",
    "finetune_music_instruct:short",
    "own_songs:some/songs.jsonl",
]
MU_LLAMA = ["pretrain_mu_llama", "finetune_mu_llama", "mu_llama"]
PUBLISHED = [
    name
    for name in NAMES
    if re.match("pretrain_|finetune_", name) and name not in MU_LLAMA
]
LLARK = ["train_llark", "train_llark_lora"]
# What learns: MusiLingo's bridge; MU-LLaMA's, and what is beside the weights; LLark's,
# a projection with bias and two marks, and the published LoRA.
LEARN = {
    "pretrain_mu_llama": 608_273_434,
    "finetune_mu_llama": 41_340_928,
    # All of LLaMA 2 but its word embeddings and its head.
    "train_llark": 4_198_400 + 2 * 4096 + 6_738_415_616 - 2 * 32_000 * 4096,
    "train_llark_lora": 4_198_400 + 2 * 4096 + 159_907_840,
}
# Trained norms are the released language model's.
LEARN["mu_llama"] = LEARN["finetune_mu_llama"] - 65 * 4096
NOTES = [*FILES, "features/mert_330m", "features/tiny"]


@pytest.fixture
def parse(monkeypatch):
    """Makes a config as from a command line."""

    def parse(*values):
        # Overrides are looked for there, whatever is parsed.
        monkeypatch.setattr(sys, "argv", ["train", *values])
        holder = flags.FlagValues()
        config = config_flags.DEFINE_config_file(
            "config", lock_config=True, flag_values=holder
        )
        holder(sys.argv)
        return config.value

    return parse


def path(name):
    file, colon, arg = name.partition(":")
    return f"--config={ROOT / 'configs' / file}.py{colon}{arg}"


def get_config(name):
    file, _, arg = name.partition(":")
    return load_config(file).get_config(arg)


def concrete(config):
    """The type of numbers, on a machine with units for it."""
    return "bfloat16" if config.model.dtype == AUTO else config.model.dtype


def test_there_are_configs():
    assert {"tiny", "own_songs", "musilingo"} <= set(FILES)
    assert len(PUBLISHED) == 8 and set(MU_LLAMA) < set(NAMES)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.py")), ids=str)
def test_a_config_imports_only_what_a_wheel_has(path):
    """It is shipped as data, so it cannot import another config."""
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Import)
        if isinstance(node, ast.ImportFrom):
            package = node.module.split(".")[0]
            assert package in {"dataclasses", "ml_collections", "musilingo_jax"}


@pytest.mark.parametrize("name", NAMES)
def test_config_builds(parse, name, tmp_path):
    config = parse(path(name), f"--config.run={tmp_path}")
    mesh = make_mesh(**config.mesh)
    FeatureConfig.from_config(config)
    GenerateConfig.from_config(config)
    # The embedded model answers alike on all machines, large ones are fast on each.
    large = name in PUBLISHED + MU_LLAMA + LLARK or name.startswith("musilingo")
    assert config.model.dtype == (AUTO if large else "float32")
    config.model.dtype = concrete(config)
    ModelConfig.from_config(config)
    assert config.stages
    looking = False
    for stage_name in config.stages:
        stage = StageConfig.from_config(config, stage_name)
        stage.check_rows(stage_name, mesh)
        looking |= stage.validate_every > 0
    assert looking == bool(config.corpus.validation_split)
    sections = {key for key in config if key.startswith("stage") and key != "stages"}
    assert sections == set(config.stages)
    RunFolder(config).claim({})  # As JSON.


@functools.cache
def vicuna(mesh, dtype, quantization):
    return weights.abstract_language_model(
        LlamaConfig.from_dict(VICUNA_7B_V0),
        dtype=dtype,
        quantization=quantization,
        mesh=mesh,
    )


def abstract_arguments(config, stage, mesh, llama):
    """State, frozen parts and batch of an update, the largest that the stage has."""
    width = MERT_330M["hidden_size"]
    rows = stage.max_windows
    if adds := "query_layers" in config.get("bridge", {}):
        rows = MERT_330M["num_hidden_layers"] + 1

    whole = llama
    if stage.learns_layers:
        llama, whole = divided(llama)
        llama = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), llama
        )

    def fresh():
        make = starting.random_bridge(config, (rows, width), llama.config)
        sizes = MapSizes.of(llama.config)
        tuning = Tuning.fresh(sizes, stage.tuning, rngs=nnx.Rngs(1))
        parts = Parts(make(rngs=nnx.Rngs(0)), None, tuning)
        return parts.only(*stage.learns)

    # The layers are shapes already.
    learning = jax.eval_shape(fresh)
    if stage.learns_layers:
        learning = replace(learning, llama=llama)
    moments = jax.eval_shape(stage.optimiser().init, learning)
    state, frozen = TrainState(learning, moments), Parts(llama=whole)
    if not stage.learns_bridge:
        make = starting.random_bridge(config, (rows, width), llama.config)
        frozen = replace(frozen, bridge=jax.eval_shape(lambda: make(rngs=nnx.Rngs(0))))
    each = -(-stage.batch_size // stage.rows)  # Examples in a row.
    batch = abstract_batch(
        stage,
        width=width,
        mesh=mesh,
        length=each * stage.max_tokens,
        windows=each * rows,
        answers=each * stage.prompt.max_answer_tokens,
    )
    assert adds or state.learning.bridge is not None
    return state, frozen, batch


@pytest.mark.parametrize("quantization", ["", "int8"])
@pytest.mark.parametrize("name", NAMES)
def test_update_traces_at_full_size(name, quantization):
    config = get_config(name)
    if quantization and name == "train_llark":
        pytest.skip("weights of int8 cannot learn")
    mesh = make_mesh(**config.mesh)
    llama = vicuna(mesh, concrete(config), quantization)
    for stage_name in config.stages:
        stage = StageConfig.from_config(config, stage_name)
        state, frozen, batch = abstract_arguments(config, stage, mesh, llama)
        learn = sum(leaf.size for leaf in jax.tree.leaves(state.learning))
        if not name.startswith("tiny_"):
            assert learn == LEARN.get(name, 4_198_400)
        update = make_update(stage, stage.optimiser(), shardings(state, mesh))
        after, report = jax.eval_shape(update, state, frozen, batch)
        assert described(after) == described(state)
        kinds = ("float32", "float32", "bool")
        assert described(report) == [((), kind) for kind in kinds]


def test_update_lowers_at_full_size_and_gives_its_memory_away():
    config = get_config("finetune_music_instruct")
    mesh = make_mesh(**config.mesh)
    assert mesh.shape["tensor"] == 8
    stage = StageConfig.from_config(config, "stage2")
    llama = vicuna(mesh, concrete(config), "")
    state, frozen, batch = abstract_arguments(config, stage, mesh, llama)
    update = make_update(stage, stage.optimiser(), shardings(state, mesh))
    program = update.lower(state, frozen, batch).as_text()
    # Of all that goes in, the old state alone lends its memory to the new one.
    assert program.count("tf.aliasing_output") == len(jax.tree.leaves(state))
    # A device holds its eighth of the gates and of the ups, not all of them.
    sharded = "tensor<32x4096x11008xbf16> {sdy.sharding = #sdy.sharding<@mesh, "
    assert program.count(sharded + '[{}, {"fsdp"}, {"tensor"}]>}') == 2


def described(tree):
    return [(leaf.shape, leaf.dtype.name) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("name", [*NAMES, "features/mert_330m"])
def test_encoder_traces_at_full_size(name):
    config = get_config(name)
    chosen = FeatureConfig.from_config(config)
    said = MertConfig.from_dict(MERT_330M)
    mert = jax.eval_shape(lambda: Mert(said, rngs=nnx.Rngs(0)))
    mert = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, concrete(config)), mert
    )
    samples = said.samples_for_frames(chosen.chunk_windows * chosen.window_frames)
    heard = jax.eval_shape(
        functools.partial(
            features.encode_batch,
            window_frames=chosen.window_frames,
            reduction=chosen.reduction,
        ),
        mert,
        jax.ShapeDtypeStruct((chosen.batch_size, samples), jnp.float32),
        jax.ShapeDtypeStruct((chosen.batch_size,), jnp.int32),
    )
    rows = 25 if chosen.reduction == "layers" else chosen.chunk_windows
    assert heard.shape == (chosen.batch_size, rows, 1024)


# Read off the original's configs, once more and by hand: the highest and the last
# learning rate, micro-batch × accumulation, epochs × micro-batches, warm-up.
TABLE = {
    "pretrain_lp_musiccaps_msd": (1e-4, 8e-5, 8, 1, 4, 5000, 5000),
    "pretrain_musiccaps": (1e-4, 8e-5, 2, 1, 4, 1000, 1000),
    "finetune_music_instruct": (3e-5, 1e-5, 2, 16, 6, 5000, 5000),
    "finetune_music_instruct:long": (3e-5, 1e-5, 2, 16, 6, 3000, 3000),
    "finetune_music_instruct:short": (3e-5, 1e-5, 2, 16, 6, 2500, 2500),
    "finetune_music_qa": (3e-5, 1e-5, 2, 16, 6, 5000, 5000),
    "finetune_musiccaps": (3e-5, 1e-5, 2, 8, 6, 1000, 1000),
    "finetune_mix": (3e-5, 1e-5, 2, 16, 7, 5000, 5000),
}
UPDATES = {
    "pretrain_lp_musiccaps_msd": (20_000, 5_000),
    "pretrain_musiccaps": (4_000, 1_000),
    "finetune_music_instruct": (1_875, 312),
    "finetune_music_instruct:long": (1_125, 187),
    "finetune_music_instruct:short": (937, 156),
    "finetune_music_qa": (1_875, 312),
    "finetune_musiccaps": (750, 125),
    "finetune_mix": (2_187, 312),
}


def test_every_published_stage_is_in_the_table():
    assert set(PUBLISHED) == set(TABLE) == set(UPDATES)


@pytest.mark.parametrize("name", TABLE)
def test_numbers_are_the_published_ones(name):
    highest, last, micro_batch, accumulate, epochs, per_epoch, warmup = TABLE[name]
    config = get_config(name)
    (only,) = config.stages
    assert only == ("stage1" if name.startswith("pretrain") else "stage2")
    stage = StageConfig.from_config(config, only)
    assert (stage.learning_rate, stage.final_learning_rate) == (highest, last)
    assert (stage.warmup_learning_rate, stage.weight_decay) == (1e-6, 0.05)
    assert stage.batch_size * stage.accumulate == micro_batch * accumulate
    assert (stage.steps, stage.warmup_steps) == UPDATES[name]
    # As many examples as there, but for what makes no whole update.
    assert 0 <= epochs * per_epoch - stage.steps * accumulate < accumulate
    assert 0 <= warmup - stage.warmup_steps * accumulate < accumulate


@pytest.mark.parametrize("name", TABLE)
def test_texts_are_the_published_ones(name):
    config = get_config(name)
    prompt = StageConfig.from_config(config, config.stages[0]).prompt
    question = "" if "musiccaps" in name else "What is it?"
    before, after = (piece.replace("{}", question) for piece in prompt.pieces)
    if name.startswith("pretrain"):
        assert (before, after) == ("", "")
        assert (prompt.end_sign, prompt.max_answer_tokens) == ("\n", 32)
    else:
        asked = question or "Please give a caption to the music."
        text = f"###Human: <Audio>♪</Audio> {asked} ###Assistant: "
        assert f"{before}♪{after}" == text
        assert (prompt.end_sign, prompt.max_answer_tokens) == ("###", 160)
    assert config.features.window_frames == 325


@pytest.mark.parametrize("name", PUBLISHED)
def test_stages_follow_each_other_and_share_a_cache(name):
    config = get_config(name)
    runs = [get_config(other).run for other in PUBLISHED]
    assert len(set(runs)) == len(runs)
    if name.startswith("pretrain"):
        assert config.model.adapter == "random"
    else:
        assert config.model.adapter == get_config("pretrain_lp_musiccaps_msd").run
    job = get_config("features/mert_330m")
    assert config.model.encoder == job.model.encoder
    assert config.model.dtype == job.model.dtype == AUTO
    tuned = {"batch_size"}  # Of which the features do not depend.
    ours, theirs = (
        {key: value for key, value in section.items() if key not in tuned}
        for section in (config.features, job.features)
    )
    assert ours == theirs


def test_numbers_of_mu_llama_are_the_published_ones():
    """Computed from its scripts: blr · batch / 256, epochs and what they draw."""
    first, second = (get_config(name) for name in MU_LLAMA[:2])
    stage1 = StageConfig.from_config(first, "stage1")
    stage2 = StageConfig.from_config(second, "stage2")
    assert stage1.learning_rate == pytest.approx(1.56e-6, rel=2e-3)
    assert stage2.learning_rate == pytest.approx(1.25e-4)
    assert stage1.batch_size * stage1.accumulate == 4
    assert stage2.batch_size * stage2.accumulate == 32
    assert stage1.steps == pytest.approx(150 * (1_897 // 4), rel=1e-3)
    assert stage2.steps == 20 * (70_011 // 32)
    assert stage1.warmup_steps / stage1.steps == pytest.approx(5 / 150, rel=1e-3)
    assert stage2.warmup_steps / stage2.steps == pytest.approx(1 / 20, rel=1e-3)
    for stage in (stage1, stage2):
        assert (stage.beta2, stage.weight_decay) == (0.95, 0.05)
        assert (stage.warmup_learning_rate, stage.final_learning_rate) == (0, 0)
    assert (stage1.learns, stage2.learns) == (("bridge",), ("tuning",))
    assert (stage2.tuning.rank, stage2.tuning.alpha) == (16, 16.0)
    assert first.model.adapter == "random"
    assert second.model.adapter == first.run
    assert first.features == second.features
    assert dict(first.bridge) == dict(second.bridge)


def test_numbers_of_llark_are_the_published_ones():
    config = get_config("train_llark_lora")
    stage = StageConfig.from_config(config, "stage1")
    assert stage.batch_size * stage.accumulate == 32
    assert (stage.steps, stage.warmup_steps) == (100_000, 3_000)
    rates = stage.learning_rate, stage.final_learning_rate, stage.warmup_learning_rate
    assert rates == (5e-5, 0.0, 0.0)
    assert (stage.weight_decay, stage.max_gradient_norm) == (0.0, 1.0)
    assert stage.max_tokens == 2048
    assert (stage.tuning.rank, stage.tuning.alpha) == (64, 16.0)
    assert stage.learns == ("bridge", "tuning")
    # 25 s of MERT's frames, at the rate that is nearest to the published one.
    heard = config.features.window_frames * stage.max_windows / 75
    assert 25.0 <= heard < 25.1
    first, other = stage.prompt.first_turn, stage.prompt.other.first_turn
    assert first[0].endswith("### Human: ") and first[1] == "\n{}"
    assert other[0].endswith("### Human: {}\n") and other[1] == ""


def test_mixture_draws_as_if_the_corpora_were_one():
    mixture = get_config("finetune_mix").corpus.mixture
    # 29,178 ± what is not known of how many questions each clip has.
    assert mixture.music_instruct.weight == pytest.approx(29_178, abs=1)
    assert mixture.music_qa.weight == 70_011


@pytest.mark.parametrize("name", NAMES)
def test_learning_rate_goes_up_and_down(name):
    config = get_config(name)
    for stage_name in config.stages:
        stage = StageConfig.from_config(config, stage_name)
        rate = stage.schedule()
        expected = {
            0: stage.warmup_learning_rate,
            stage.warmup_steps / 2: (stage.warmup_learning_rate + stage.learning_rate)
            / 2,
            stage.warmup_steps: stage.learning_rate,
            stage.steps: stage.final_learning_rate,
        }
        found = [float(rate(step)) for step in expected]
        # The middle of an odd number of updates lies between two of them.
        assert found == pytest.approx(list(expected.values()), rel=1e-3)


@pytest.mark.parametrize("name", sorted({*NAMES} - {*PUBLISHED, *MU_LLAMA, *LLARK}))
def test_the_cache_follows_the_run_folder(parse, name):
    config = parse(path(name), "--config.run=elsewhere")
    assert config.features.cache == "elsewhere/cache"


@pytest.mark.parametrize("name", NOTES)
def test_commands_of_the_notes_can_be_pasted(name):
    doc = load_config(name).__doc__
    config = f"--config=configs/{name}.py"
    assert config in doc
    found = commands.commands_in(doc)
    assert found
    # Lines of flags alone are to be added to a command.
    for line in re.findall(r"^    (--config.*)$", doc, re.MULTILINE):
        words = line.split("#")[0].split()
        first = [] if words[0].startswith("--config=") else [config]
        found.append(["musilingo_jax.train", *first, *words])
    for words in found:
        # What a reader has to fill in, the parsers need not see.
        commands.check([word for word in words if "…" not in word])
        if words[0] == "musilingo_jax.corpora.build":
            build.find(words[1])


def test_update_in_one_piece_is_dealt_out_to_eight_devices(parse):
    doc = load_config("finetune_music_instruct").__doc__
    typed = re.findall(r"--config\.(?:stage2|mesh)\.\S+", doc)
    assert len(typed) == 5
    config = parse(path("finetune_music_instruct"), *typed)
    stage = StageConfig.from_config(config, "stage2")
    stage.check_rows("stage2", make_mesh(**config.mesh))
    published = StageConfig.from_config(get_config("finetune_music_qa"), "stage2")
    assert (
        stage.batch_size * stage.accumulate
        == published.batch_size * published.accumulate
    )


@pytest.mark.parametrize("key", ["stage2.stepz", "nonsense", "features.window"])
def test_unknown_key_of_the_command_line_is_refused(parse, key):
    with pytest.raises(AttributeError, match=key.split(".")[-1]):
        parse(path("tiny"), f"--config.{key}=3")


def test_unknown_part_of_a_corpus_is_refused(parse):
    with pytest.raises(UserError, match=":log: choose one of all, long, short"):
        parse(path("finetune_music_instruct:log"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("stage2.stepz", 3, "config.stage2 has stepz, which nothing reads"),
        ("stage2.prompt.sign", "", "config.stage2.prompt has sign"),
        ("stage2.questions", "some", "choose one of 'captions', 'questions', 'all'"),
        ("stage2.steps", 0, "config.stage2.steps is 0"),
        ("stage2.warmup_steps", 999, "must be less than config.stage2.steps"),
        ("stage2.batch_size", -4, "config.stage2.batch_size is -4"),
        ("stages", ("stage3",), "no such section"),
    ],
)
def test_wrong_stage_is_refused(key, value, message):
    config = load_config("tiny").get_config()
    *sections, last = key.split(".")
    section = config
    for name in sections:
        section = section[name]
    section[last] = value
    with pytest.raises(UserError, match=message):
        StageConfig.from_config(config, config.stages[-1])


def test_missing_key_is_named():
    config = load_config("tiny").get_config()
    del config.stage1.weight_decay
    with pytest.raises(UserError, match="config.stage1 lacks weight_decay"):
        StageConfig.from_config(config, "stage1")


def test_own_songs_takes_the_path_as_argument(parse):
    config = parse(path("own_songs") + ":some/songs.jsonl")
    assert config.corpus.path == "some/songs.jsonl"


@pytest.mark.parametrize("name", FILES)
def test_the_models_of_a_config_are_known_to_plan(name, monkeypatch):
    """By their names, without a download."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = get_config(name)
    found = model_shapes.shapes(config, language_model_config="", encoder_width=0)
    assert found.language_model.depth > 0 and found.encoder_width > 0
