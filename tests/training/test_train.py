"""Training end to end on random models: exact resumes, equal meshes, clear refusals."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from helpers.small_run import (
    make_corpus,
    make_models,
    small_config,
    small_flags,
    start_training,
)
from safetensors.numpy import load_file

from musilingo_jax import train as training
from musilingo_jax.models.adapter import Adapter
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training import metrics_log as journals
from musilingo_jax.training.stage_config import StageConfig

ONE = {"mesh__data": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models, songs and one run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("training")
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    make_models(folder)
    make_corpus(folder / "corpus")
    training.train(small_config(folder, "whole", **ONE), typed=["--config=x.py"])
    return folder


def metrics(folder, run):
    lines = (folder / run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses(folder, run):
    rows = [row for row in metrics(folder, run) if "loss" in row]
    return [(row["stage"], row["step"], row["loss"]) for row in rows]


def assert_same_adapter(folder, one, other):
    one = load_file(folder / one / "adapter" / "model.safetensors")
    other = load_file(folder / other / "adapter" / "model.safetensors")
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_a_run_leaves_what_it_promises(folder):
    run = folder / "whole"
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    text = (run / "summary.txt").read_text()
    assert (
        "stage1: 5 updates of 8 examples, drawn from 5 examples about 5 clips" in text
    )
    assert "stage2: 8 updates of 16 examples, drawn from 10 examples" in text
    for program in ("evaluate", "generate", "chat"):
        assert f"python -m musilingo_jax.{program}" in text
    adapter = weights.load_adapter(run / "adapter", mesh=None)
    assert adapter.projection.kernel.shape == (16, 32)
    steps = [(stage, step) for stage, step, _ in losses(folder, "whole")]
    assert steps == [("stage1", s + 1) for s in range(5)] + [
        ("stage2", s + 1) for s in range(8)
    ]
    assert all(np.isfinite(loss) for *_, loss in losses(folder, "whole"))


def test_training_lowers_the_loss(folder):
    changes = {
        "stages": ("stage1",),
        "stage1__steps": 40,
        "stage1__learning_rate": 0.05,
    }
    training.train(small_config(folder, "longer", **ONE, **changes))
    found = [loss for *_, loss in losses(folder, "longer")]
    assert np.mean(found[-5:]) < np.mean(found[:5]) - 0.1


def test_a_finished_run_is_not_done_again(folder, monkeypatch):
    before = losses(folder, "whole")
    monkeypatch.setattr(
        training, "make_update", lambda *args: pytest.fail("it trained again")
    )
    training.train(small_config(folder, "whole", **ONE))
    assert losses(folder, "whole") == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_saves_and_goes_on_bit_for_bit(
    folder, monkeypatch, capsys, number
):
    run = f"stopped-{number}"
    original = journals.MetricsLog.add

    def add(journal, done, report):
        original(journal, done, report)
        if journal._name == "stage2" and done == 4:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(journals.MetricsLog, "add", add)
        with pytest.raises(SystemExit) as stopped:
            training.train(small_config(folder, run, **ONE))
    assert stopped.value.code == 128 + number
    assert "stopped after update 4 of 8 of stage2" in capsys.readouterr().err
    assert not (folder / run / "adapter").exists()
    training.train(small_config(folder, run, **ONE))
    assert_same_adapter(folder, run, "whole")
    assert losses(folder, run) == losses(folder, "whole")


def start_on_one_device(folder, run):
    # With as many devices as this process has, so that both compute alike.
    flags = [*small_flags(folder, run), "--config.mesh.data=1"]
    return start_training(flags, devices=jax.device_count())


def wait_until(condition, process):
    start = time.monotonic()
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() - start < 300
        time.sleep(0.01)


def test_killed_it_goes_on_bit_for_bit(folder):
    process = start_on_one_device(folder, "killed")
    checkpoint = folder / "killed" / "stage1" / "checkpoints" / "3"
    wait_until(checkpoint.exists, process)
    process.kill()
    process.communicate()
    assert not (folder / "killed" / "adapter").exists()
    training.train(small_config(folder, "killed", **ONE))
    assert_same_adapter(folder, "killed", "whole")
    assert losses(folder, "killed") == losses(folder, "whole")


@pytest.mark.slow
def test_killed_at_random_again_and_again(folder):
    kills = 0
    for seed in range(6):
        process = start_on_one_device(folder, "random")
        started = time.time()
        log, summary = (folder / "random" / n for n in ("metrics.jsonl", "summary.txt"))
        wait_until(
            lambda log=log, summary=summary, started=started: (
                log.exists() and log.stat().st_mtime > started or summary.exists()
            ),
            process,
        )
        time.sleep(random.Random(seed).uniform(0, 1.5))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        if summary.exists():
            break
    assert kills
    training.train(small_config(folder, "random", **ONE))
    assert_same_adapter(folder, "random", "whole")
    assert losses(folder, "random") == losses(folder, "whole")


def test_frozen_weights_stay_and_only_the_adapter_is_kept(folder, monkeypatch):
    """Nothing of the language model changes, is saved, or has moments."""
    loaded, states = [], []
    load, first = weights.load_language_model, training.first_state

    def remember(*arguments, **options):
        llama = load(*arguments, **options)
        loaded.append((llama, jax.device_get(jax.tree.leaves(llama))))
        return llama

    def look(*arguments):
        state, start = first(*arguments)
        states.append(jax.eval_shape(lambda: state))
        return state, start

    monkeypatch.setattr(weights, "load_language_model", remember)
    monkeypatch.setattr(training, "first_state", look)
    training.train(small_config(folder, "frozen", **ONE))
    ((llama, before),) = loaded
    for old, new in zip(before, jax.tree.leaves(llama), strict=True):
        np.testing.assert_array_equal(old, new)

    def size(tree):
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))

    for state in states:
        counts = 2  # One of AdamW, one of the schedule.
        assert size(state.optimiser) == 2 * size(state.adapter) + counts
    saved = ocp.StandardCheckpointer().metadata(
        folder / "frozen/stage2/checkpoints/8/state"
    )
    arrays = jax.tree.leaves(saved.item_metadata.tree)
    assert size(arrays) == 3 * size(state.adapter) + counts


HELD_OUT = {"corpus__validation_split": "test", "stage2__validate_every": 3}


def test_the_best_is_kept_and_known_after_a_stop(folder, monkeypatch):
    """Updates 3 and 8 are better than 6; 3 the best, long gone but for being that."""
    looked, real = [], training.mean_loss

    def mean_loss(look, state, llama, batches):
        looked.append(real(look, state, llama, batches))
        # What it is after update 3, 6 and 8, whenever it is asked.
        return {3: 1.0, 6: 3.0, 8: 2.0}[int(jax.tree.leaves(state.optimiser)[0])]

    monkeypatch.setattr(training, "mean_loss", mean_loss)
    changes = {**ONE, **HELD_OUT, "stage2__checkpoint_every": 1, "stage2__keep": 2}
    training.train(small_config(folder, "best", **changes))
    assert len(looked) == 3 and all(map(np.isfinite, looked))
    kept = (folder / "best/stage2/checkpoints").glob("[0-9]*")
    assert sorted(path.name for path in kept) == ["3", "7", "8"]
    text = (folder / "best/summary.txt").read_text()
    assert "on 2 examples: 1.000 → 2.000; lowest 1.000 after update 3" in text
    assert "adapter-best" in text
    assert_same_adapter(folder, "best", "whole")  # It changes nothing that is learnt.

    original = journals.MetricsLog.add

    def add(journal, done, report):
        original(journal, done, report)
        if journal._name == "stage2" and done == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(journals.MetricsLog, "add", add)
        with pytest.raises(SystemExit):
            training.train(small_config(folder, "best-stopped", **changes))
    training.train(small_config(folder, "best-stopped", **changes))
    for name in ("adapter", "adapter-best"):
        one, other = (
            load_file(folder / run / name / "model.safetensors")
            for run in ("best", "best-stopped")
        )
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])
    best = load_file(folder / "best/adapter-best/model.safetensors")
    last = load_file(folder / "best/adapter/model.safetensors")
    assert any((best[key] != last[key]).any() for key in best)


def test_validation_is_the_loss_of_the_adapter_on_examples_once_each(folder):
    run = folder / "best"
    found = [r for r in metrics(folder, "best") if "validation_loss" in r]
    assert [row["step"] for row in found] == [3, 6, 8]
    assert json.loads((run / "stage2/examples.json").read_text()) == {
        "clips": 5,
        "examples": 10,
        "of_corpus": {"": 10},
        "repeated": 0,
        "cut": 0,
        "too_long": 0,
        "without_audio": 0,
        "validation_examples": 2,
        "validation_too_long": 0,
        "validation_without_audio": 0,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus__validation_split": "valid"}, "no records in the split 'valid'"),
        (
            {"stage1__questions": "all", "stage2__questions": "all"},
            "has nothing for stage2 to look at",
        ),
    ],
)
def test_a_validation_split_without_examples_is_refused(folder, change, message):
    changes = {**ONE, **HELD_OUT, **change}
    if "stage1__questions" in change:
        # The only song to look at is a caption.
        corpus = make_corpus(folder / "held-out")
        lines = [json.loads(line) for line in corpus.read_text().splitlines()]
        lines = [x for x in lines if x["split"] == "train" or "question" not in x]
        corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
        changes["corpus__path"] = str(corpus)
        changes["stage2__questions"] = "questions"
    with pytest.raises(UserError, match=message):
        training.train(small_config(folder, "no-validation", **changes))


def test_a_row_of_metrics_tells_how_fast_it_goes(folder):
    rows = metrics(folder, "whole")
    assert "tokens_per_second" not in rows[0]  # It was compiled.
    timed = [row for row in rows if "tokens_per_second" in row]
    assert {row["stage"] for row in timed} == {"stage1", "stage2"}
    for row in timed:
        assert row["tokens_per_second"] > 0
        assert row["model_tflops_per_second"] > 0
    for row in rows:
        assert 0 <= row["padding_share"] < 1
        assert "model_flop_utilisation" not in row  # Of a CPU, no peak is known.
    assert list((folder / "whole/tensorboard/stage2").glob("events.out.tfevents.*"))


def test_of_a_known_device_the_share_of_its_peak_is_told(folder, monkeypatch):
    monkeypatch.setattr(training.costs, "peak_flops", lambda kind: 1e9)
    config = small_config(folder, "peak", **ONE, stages=("stage1",))
    training.train(config)
    timed = [r for r in metrics(folder, "peak") if "tokens_per_second" in r]
    assert timed
    for row in timed:
        share = row["model_tflops_per_second"] * 1e12 / 1e9
        assert row["model_flop_utilisation"] == pytest.approx(share, abs=2e-3)


@pytest.mark.parametrize("kills", [3])
def test_killed_also_while_a_checkpoint_is_written(folder, kills):
    """Once at the first write that is seen, then at later ones."""
    saving = folder / "torn" / "stage2" / "checkpoints"
    for _ in range(kills):
        process = start_on_one_device(folder, "torn")
        wait_until(lambda: list(saving.glob("*orbax-checkpoint-tmp*")), process)
        process.kill()
        process.communicate()
    training.train(small_config(folder, "torn", **ONE))
    assert_same_adapter(folder, "torn", "whole")
    assert losses(folder, "torn") == losses(folder, "whole")


@pytest.mark.parametrize(
    "mesh", [(2, 2, 2), pytest.param((8, 1, 1), marks=pytest.mark.slow)]
)
def test_eight_devices_are_one(folder, mesh):
    run = "mesh-" + "-".join(map(str, mesh))
    axes = dict(zip(("data", "fsdp", "tensor"), mesh, strict=True))
    training.train(
        small_config(folder, run, **{f"mesh__{k}": v for k, v in axes.items()})
    )
    found, expected = losses(folder, run), losses(folder, "whole")
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    np.testing.assert_allclose(
        [loss for *_, loss in found], [loss for *_, loss in expected], atol=1e-5
    )


def test_biases_do_not_decay(folder):
    stage = StageConfig.from_config(
        small_config(folder, "x", stage1__weight_decay=0.5), "stage1"
    )
    adapter = jax.tree.map(jnp.ones_like, Adapter(3, 4, rngs=nnx.Rngs(0)))
    optimiser, nothing = stage.optimiser(), jax.tree.map(jnp.zeros_like, adapter)
    change, _ = optimiser.update(nothing, optimiser.init(adapter), adapter)
    rate = stage.warmup_learning_rate
    np.testing.assert_allclose(change.projection.kernel[...], -rate * 0.5, rtol=1e-5)
    np.testing.assert_array_equal(change.projection.bias[...], 0)


def test_a_loss_that_is_no_number_stops_and_names_the_clips(folder):
    adapter = Adapter(16, 32, rngs=nnx.Rngs(0))
    broken = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), adapter)
    weights.save_adapter(broken, folder / "nan", dtype="float32", window_frames=10)
    config = small_config(folder, "broken", model__adapter=str(folder / "nan"), **ONE)
    with pytest.raises(UserError, match=r"stage1, update 1: the loss is nan.*0\.wav"):
        training.train(config)
    assert not list((folder / "broken").glob("stage1/checkpoints/[0-9]*"))


def test_an_adapter_that_is_no_number_is_not_saved(folder):
    """Its loss, from before the update, is one."""
    changes = {"stages": ("stage1",), "stage1__steps": 1, "stage1__warmup_steps": 0}
    # Their product is more than a float32 holds.
    changes |= {"stage1__learning_rate": 1e38, "stage1__weight_decay": 1e6}
    with pytest.raises(UserError, match=r"stage1, update 1: its loss is \d.*no number"):
        training.train(small_config(folder, "overflow", **ONE, **changes))
    assert not list((folder / "overflow").glob("stage1/checkpoints/[0-9]*"))
    assert not (folder / "overflow/adapter").exists()


def test_examples_that_are_there_twice_are_counted(folder):
    corpus = make_corpus(folder / "twice", songs=3)
    lines = corpus.read_text().splitlines()
    corpus.write_text("\n".join([*lines, lines[0], lines[0], lines[1]]))
    changes = {"stages": ("stage1",), "stage1__steps": 1, "stage1__warmup_steps": 0}
    changes["corpus__path"] = str(corpus)
    training.train(small_config(folder, "twice-run", **ONE, **changes))
    about = json.loads((folder / "twice-run/stage1/examples.json").read_text())
    assert (about["examples"], about["repeated"]) == (4, 2)
    text = (folder / "twice-run/summary.txt").read_text()
    assert "2 examples are there twice" in text


def test_stage2_alone_starts_from_a_given_adapter(folder):
    changes = {"stages": ("stage2",), "model__adapter": str(folder / "whole/adapter")}
    training.train(small_config(folder, "second", **ONE, **changes))
    assert {stage for stage, *_ in losses(folder, "second")} == {"stage2"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"stage2__steps": 9}, "stage2.steps"),
        ({"corpus__train_split": "test"}, "corpus.train_split, records"),
        ({"stage1__prompt__end_sign": "."}, "stage1.prompt.end_sign"),
    ],
)
def test_a_folder_of_another_run_is_refused(folder, change, named):
    with pytest.raises(UserError, match=f"differs in {named}: choose another folder"):
        training.train(small_config(folder, "whole", **ONE, **change))


def test_two_programs_do_not_train_in_one_folder(folder):
    """The other one is a process of its own: a process may claim a folder again."""
    hold = (
        "import sys; from pathlib import Path; "
        "from musilingo_jax.runtime.storage import lock_folder; "
        "lock_folder(Path(sys.argv[1]), doing='training'); print(flush=True); input()"
    )
    (folder / "shared").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(folder / "shared")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        other.stdout.readline()
        with pytest.raises(UserError, match="another program is training here"):
            training.train(small_config(folder, "shared", **ONE))
        other.communicate(b"\n")
    training.train(small_config(folder, "shared", **ONE))


def test_a_replaced_song_is_another_run(folder):
    corpus = make_corpus(folder / "replaced", songs=3)
    changes = {"corpus__path": str(corpus), **ONE}
    training.train(small_config(folder, "replaced_run", **changes))
    song = corpus.parent / "0.wav"
    sound = bytearray(song.read_bytes())
    sound[-2:] = bytes([sound[-2] ^ 1, sound[-1]])
    song.write_bytes(sound)
    with pytest.raises(UserError, match="differs in records"):
        training.train(small_config(folder, "replaced_run", **changes))


def test_changed_records_are_another_run(folder):
    corpus = make_corpus(folder / "other", songs=3)
    lines = corpus.read_text().replace("quiet", "loud")
    corpus.write_text(lines)
    config = small_config(folder, "whole", corpus__path=str(corpus), **ONE)
    with pytest.raises(UserError, match=r"differs in corpus.path, records"):
        training.train(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus__train_split": "trian"}, "no records in the split 'trian'"),
        ({"stages": ()}, "config.stages is empty"),
        ({"stages": ("stage1", "stage1")}, "name each stage once"),
        ({"corpus__validation_split": "nope"}, "set validate_every of one"),
        ({"stage2__validate_every": 2}, "name a config.corpus.validation_split"),
        ({"seed": -1}, "config.seed is -1"),
        ({"features__window_frames": 0}, "features.window_frames is 0"),
        ({"mesh__data": 3}, "config.stage1.rows is 8, which cannot be dealt out"),
        ({"stage1__max_tokens": 4}, "none of the 5 examples fits"),
        ({"model__adapter": "whole/adapter", "features__window_frames": 5}, "belongs"),
    ],
)
def test_what_cannot_be_trained_is_refused(folder, change, message):
    if "model__adapter" in change:
        change = change | {"model__adapter": str(folder / change["model__adapter"])}
        change |= {"features__cache": str(folder / "cache5")}
    with pytest.raises(UserError, match=message):
        training.train(small_config(folder, "refused", **{**ONE, **change}))


def test_a_stage_without_records_is_refused(folder, monkeypatch):
    corpus = make_corpus(folder / "captions")
    lines = [x for x in corpus.read_text().splitlines() if "question" not in x]
    corpus.write_text("\n".join(lines))
    config = small_config(
        folder, "captions-run", corpus__path=str(corpus), stages=("stage2",), **ONE
    )
    told = r"config.stage2.questions = 'questions' leaves .*stage2.questions=all"
    # Before anything is encoded.
    monkeypatch.setattr(training.cache, "prepare", lambda *args: pytest.fail("encodes"))
    with pytest.raises(UserError, match=told):
        training.train(config)


def test_a_run_folder_that_cannot_be_written_is_refused(folder):
    (folder / "file").write_text("")
    config = small_config(folder, "file/run", **ONE)
    with pytest.raises(UserError, match=r"config.run: nothing can be written.*file"):
        training.train(config)


def test_summary_tells_of_what_was_left_out(folder):
    run = SimpleNamespace(
        path=folder / "whole",
        read=lambda name: {
            "clips": 2,
            "examples": 3,
            "repeated": 10,
            "cut": 4,
            "too_long": 5,
            "without_audio": 6,
            "validation_too_long": 8,
            "validation_without_audio": 9,
        },
        metrics=lambda name: [{"loss": 3.0}, {"loss": 1.5}],
    )
    stage = StageConfig.from_config(small_config(folder, "x"), "stage1")
    features = SimpleNamespace(skipped={"a": "a.wav: is empty", "b": "elsewhere"})
    text = training.summary.describe(
        run,
        {"stage1": stage},
        features,
        ["a", "c"],
        not_learnt=7,
        seconds=3723,
        typed=[],
    )
    assert "loss 3.000 → 1.500" in text
    assert "10 examples are there twice" in text
    assert "4 answers were cut at 32 tokens" in text
    assert "5 examples longer than 96 tokens were left out" in text
    assert "6 examples were left out because their song" in text
    assert "8 validation examples longer than 96 tokens were left out" in text
    assert "9 validation examples were left out because their song" in text
    assert "7 records of the training split were not learnt from" in text
    assert "a.wav: is empty" in text
    assert "elsewhere" not in text
    assert "1 h 2 min 3 s" in text
