"""Training end to end on random models: exact resumes, equal meshes, clear refusals."""

import contextlib
import io
import json
import math
import os
import random
import re
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
from helpers import programs
from helpers.processes import signal_at
from helpers.small_run import (
    COMPILED_ALIKE,
    ROOT,
    VALIDATED,
    make_corpus,
    small_config,
    small_flags,
    trained_folder,
)
from safetensors.numpy import load_file

from musilingo_jax import train as training
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.parts import Parts
from musilingo_jax.pretrained import weights
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training import flops
from musilingo_jax.training.metrics_log import MetricsLog
from musilingo_jax.training.run_folder import RunFolder
from musilingo_jax.training.stage_config import StageConfig

pytestmark = pytest.mark.medium

ONE = {"mesh__data": 1}
VALIDATING = {key.replace(".", "__"): value for key, value in VALIDATED.items()}
# A run of a single update.
SHORT = {"stages": ("stage1",), "stage1__steps": 1, "stage1__warmup_steps": 0}


@pytest.fixture(scope="module")
def folder():
    return trained_folder()


def metrics(folder, run):
    lines = (folder / run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses(folder, run):
    rows = [row for row in metrics(folder, run) if "loss" in row]
    return [(row["stage"], row["step"], row["loss"]) for row in rows]


def assert_same_adapter(folder, one, other, name="adapter"):
    one = load_file(folder / one / name / "model.safetensors")
    other = load_file(folder / other / name / "model.safetensors")
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])


@contextlib.contextmanager
def signal_after(stage, step, number):
    """Sends this process a signal as soon as the row of an update is written.

    The row of update n is written after update n + 1 is started, which is therefore the
    last one.
    """
    log = RunFolder.log

    def log_and_signal(run, row):
        log(run, row)
        if (row["stage"], row["step"]) == (stage, step) and "loss" in row:
            os.kill(os.getpid(), number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "log", log_and_signal)
        yield


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
    assert adapter.bridge.projection.kernel.shape == (16, 32)
    steps = [(stage, step) for stage, step, _ in losses(folder, "whole")]
    assert steps == [("stage1", s + 1) for s in range(5)] + [
        ("stage2", s + 1) for s in range(8)
    ]
    assert all(np.isfinite(loss) for *_, loss in losses(folder, "whole"))


def test_training_lowers_the_loss(folder):
    changes = {
        "stages": ("stage1",),
        "stage1__steps": 24,
        "stage1__learning_rate": 0.05,
    }
    training.train(small_config(folder, "longer", **ONE, **changes))
    found = [loss for *_, loss in losses(folder, "longer")]
    assert np.mean(found[-5:]) < np.mean(found[:5]) - 0.1


def test_a_finished_run_is_not_done_again(folder, monkeypatch):
    before = losses(folder, "whole")

    def make_update(*args):
        return lambda *args: pytest.fail("it trained again")

    monkeypatch.setattr(training, "make_update", make_update)
    training.train(small_config(folder, "whole", **ONE, **VALIDATING))
    assert losses(folder, "whole") == before


@pytest.fixture(scope="module")
def stopped(folder):
    """A run without validation that Ctrl-C stopped, and that was then resumed.

    It is watched: which language models were loaded, with the values that they had
    then, and the shapes of the states that stages began with. Its devices have a peak.
    """
    found = SimpleNamespace(loaded=[], states=[])
    load, first = weights.load_language_model, training.first_state

    def load_and_remember(*arguments, **options):
        llama = load(*arguments, **options)
        found.loaded.append((llama, jax.device_get(jax.tree.leaves(llama))))
        return llama

    def first_and_remember(*arguments):
        state, start = first(*arguments)
        found.states.append(jax.eval_shape(lambda: state))
        return state, start

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "load_language_model", load_and_remember)
        patch.setattr(training, "first_state", first_and_remember)
        patch.setattr(flops, "peak_flops", lambda kind: 1e9)
        with (
            signal_after("stage2", 3, signal.SIGINT),
            contextlib.redirect_stderr(io.StringIO()) as stderr,
            pytest.raises(SystemExit) as exited,
        ):
            training.train(small_config(folder, "stopped", **ONE))
        found.code, found.stderr = exited.value.code, stderr.getvalue()
        found.unfinished = not (folder / "stopped/adapter").exists()
        training.train(small_config(folder, "stopped", **ONE))
    return found


def test_asked_to_stop_it_saves_and_resumes_bit_for_bit(folder, stopped):
    """And validation, which the other run does, changes nothing that is learnt."""
    assert stopped.code == 128 + signal.SIGINT
    assert "stopped after update 4 of 8 of stage2" in stopped.stderr
    assert stopped.unfinished
    assert_same_adapter(folder, "stopped", "whole")
    assert losses(folder, "stopped") == losses(folder, "whole")
    assert not (folder / "stopped/adapter-best").exists()


def flags_on_one_device(folder, run):
    return [*small_flags(folder, run), "--config.mesh.data=1"]


def environment(folder):
    """Of a process that computes as this one: with as many devices, compiled alike."""
    return COMPILED_ALIKE | {"JAX_NUM_CPU_DEVICES": str(jax.device_count())}


def test_killed_while_it_writes_checkpoints_it_resumes_bit_for_bit(folder):
    """At the beginning of the second, when all is written, and before the last step."""
    tmp = "orbax-checkpoint-tmp"
    for event, path in (
        ("os.mkdir", f"stage1/checkpoints/5.{tmp}"),
        ("open", f"stage2/checkpoints/3.{tmp}/state.{tmp}/_METADATA"),
        ("os.rename", "stage2/checkpoints/6"),
    ):
        done = programs.run(
            "train",
            *flags_on_one_device(folder, "killed"),
            env=environment(folder),
            prelude=signal_at(event, path, signal.SIGKILL),
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        left = folder / "killed" / path.split(f".{tmp}")[0]
        assert not left.exists()
        assert left.with_name(f"{left.name}.{tmp}").exists() == (event != "os.mkdir")
        assert left.with_name("3").exists() == (left.name != "3")
    assert not (folder / "killed" / "adapter").exists()
    training.train(small_config(folder, "killed", **ONE))
    assert_same_adapter(folder, "killed", "whole")
    assert losses(folder, "killed") == losses(folder, "whole")


def test_stopped_while_the_last_checkpoint_of_a_stage_is_written_it_saves(folder):
    path = "stage1/checkpoints/5"
    done = programs.run(
        "train",
        *flags_on_one_device(folder, "late"),
        env=environment(folder),
        prelude=signal_at("os.rename", path, signal.SIGTERM),
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert "stopped after update 5 of 5 of stage1, which is saved" in done.stderr
    assert (folder / "late" / path).exists()
    assert not (folder / "late" / "stage2").exists()


@pytest.mark.slow
def test_killed_at_random_again_and_again(folder):
    kills = 0
    for seed in range(6):
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "musilingo_jax.train",
                *flags_on_one_device(folder, "random"),
            ],
            cwd=ROOT,
            env=os.environ | environment(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started = time.time()
        log, summary = (folder / "random" / n for n in ("metrics.jsonl", "summary.txt"))
        while process.poll() is None and not (
            log.exists() and log.stat().st_mtime > started
        ):
            time.sleep(0.01)
        time.sleep(random.Random(seed).uniform(0, 1.5))
        process.kill()
        _, stderr = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), stderr
        kills += process.returncode == -signal.SIGKILL
        if summary.exists():
            break
    assert kills
    training.train(small_config(folder, "random", **ONE))
    assert_same_adapter(folder, "random", "whole")
    assert losses(folder, "random") == losses(folder, "whole")


def test_frozen_weights_stay_and_only_the_adapter_is_kept(folder, stopped):
    """Nothing of the language model changes, is saved, or has moments."""
    assert len(stopped.loaded) == 2
    for llama, before in stopped.loaded:
        for old, new in zip(before, jax.tree.leaves(llama), strict=True):
            np.testing.assert_array_equal(old, new)

    def size(tree):
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))

    assert stopped.states
    for state in stopped.states:
        counts = 2  # One of AdamW, one of the schedule.
        assert size(state.optimiser) == 2 * size(state.learning) + counts
    saved = ocp.StandardCheckpointer().metadata(
        folder / "stopped/stage2/checkpoints/8/state"
    )
    arrays = jax.tree.leaves(saved.item_metadata.tree)
    assert size(arrays) == 3 * size(state.learning) + counts


def test_the_best_is_kept_and_known_after_a_stop(folder, monkeypatch, capsys):
    """Updates 3 and 8 are better than 6; 3 the best, and no longer one of the newest.

    SIGTERM stops it after update 5.
    """
    steps, adapters, real = [], {}, []
    begin, mean_loss = MetricsLog.begin, training.mean_loss

    def begin_and_remember(log, step):
        steps.append(step)
        begin(log, step)

    def mean_loss_as_told(batch_loss, learning, frozen, batches):
        real.append(mean_loss(batch_loss, learning, frozen, batches))
        adapters[steps[-1]] = jax.device_get(jax.tree.leaves(learning))
        return {3: 1.0, 6: 3.0, 8: 2.0}[steps[-1]]

    monkeypatch.setattr(MetricsLog, "begin", begin_and_remember)
    monkeypatch.setattr(training, "mean_loss", mean_loss_as_told)
    changes = ONE | VALIDATING | {"stage2__checkpoint_every": 1, "stage2__keep": 2}
    config = small_config(folder, "best", **changes)
    with (
        signal_after("stage2", 4, signal.SIGTERM),
        pytest.raises(SystemExit) as exited,
    ):
        training.train(config)
    assert exited.value.code == 128 + signal.SIGTERM
    assert "stopped after update 5 of 8 of stage2" in capsys.readouterr().err
    training.train(config)

    assert list(adapters) == [3, 6, 8]
    assert all(map(np.isfinite, real))
    kept = (folder / "best/stage2/checkpoints").glob("[0-9]*")
    assert sorted(path.name for path in kept) == ["3", "7", "8"]
    text = (folder / "best/summary.txt").read_text()
    assert "on 2 examples: 1.000 → 2.000; lowest 1.000 after update 3" in text
    assert "adapter-best" in text
    assert_same_adapter(folder, "best", "whole")
    best = weights.load_adapter(folder / "best/adapter-best", mesh=None)
    last = weights.load_adapter(folder / "best/adapter", mesh=None)
    for step, adapter in ((3, best), (8, last)):
        for expected, found in zip(
            adapters[step], jax.tree.leaves(adapter), strict=True
        ):
            np.testing.assert_array_equal(expected, found)
    assert any((a != b).any() for a, b in zip(adapters[3], adapters[8], strict=True))


def test_validation_is_the_loss_of_the_adapter_on_examples_once_each(folder):
    run = folder / "whole"
    found = [r for r in metrics(folder, "whole") if "validation_loss" in r]
    assert [row["step"] for row in found] == [3, 6, 8]
    assert all(math.isfinite(row["validation_loss"]) for row in found)
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
            "has nothing for stage2 to validate on",
        ),
    ],
)
def test_a_validation_split_without_examples_is_refused(folder, change, message):
    changes = ONE | VALIDATING | change
    if "stage1__questions" in change:
        # The only validation record is a caption.
        corpus = make_corpus(folder / "held-out")
        lines = [json.loads(line) for line in corpus.read_text().splitlines()]
        lines = [x for x in lines if x["split"] == "train" or "question" not in x]
        corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
        changes["corpus__path"] = str(corpus)
        changes["stage2__questions"] = "questions"
    with pytest.raises(UserError, match=message):
        training.train(small_config(folder, "no-validation", **changes))


def test_rows_of_metrics_have_speeds(folder):
    rows = metrics(folder, "whole")
    assert "tokens_per_second" not in rows[0]  # It was compiled.
    timed = [row for row in rows if "tokens_per_second" in row]
    assert {row["stage"] for row in timed} == {"stage1", "stage2"}
    for row in timed:
        assert row["tokens_per_second"] > 0
        assert row["model_tflops_per_second"] > 0
    for row in rows:
        assert ("padding_share" in row) == ("loss" in row)
        assert 0 <= row.get("padding_share", 0) < 1
        assert "model_flop_utilisation" not in row  # The peak of a CPU is unknown.
    assert list((folder / "whole/tensorboard/stage2").glob("events.out.tfevents.*"))


def test_of_a_known_device_the_share_of_its_peak_is_logged(folder, stopped):
    timed = [r for r in metrics(folder, "stopped") if "tokens_per_second" in r]
    assert {row["stage"] for row in timed} == {"stage1", "stage2"}
    for row in timed:
        share = row["model_tflops_per_second"] * 1e12 / 1e9
        assert row["model_flop_utilisation"] == pytest.approx(share, abs=2e-3)


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
    adapter = jax.tree.map(jnp.ones_like, LinearBridge(3, 4, rngs=nnx.Rngs(0)))
    optimiser, nothing = stage.optimiser(), jax.tree.map(jnp.zeros_like, adapter)
    change, _ = optimiser.update(nothing, optimiser.init(adapter), adapter)
    rate = stage.warmup_learning_rate
    np.testing.assert_allclose(change.projection.kernel[...], -rate * 0.5, rtol=1e-5)
    np.testing.assert_array_equal(change.projection.bias[...], 0)


def test_a_loss_that_is_nan_stops_and_names_the_clips(folder):
    adapter = LinearBridge(16, 32, rngs=nnx.Rngs(0))
    # Finite, as a file has to be, but their products are not.
    huge = jax.tree.map(lambda x: jnp.full_like(x, 3e38), adapter)
    weights.save_adapter(
        Parts(bridge=huge),
        folder / "huge",
        dtype="float32",
        window_frames=10,
        trained_with=None,
    )
    config = small_config(folder, "broken", model__adapter=str(folder / "huge"), **ONE)
    with pytest.raises(UserError, match=r"stage1, update 1: the loss is nan.*0\.wav"):
        training.train(config)
    assert not list((folder / "broken").glob("stage1/checkpoints/[0-9]*"))


def test_an_adapter_that_is_infinite_is_not_saved(folder):
    """Its loss, from before the update, is finite."""
    # Their product is more than a float32 holds.
    changes = SHORT | {"stage1__learning_rate": 1e38, "stage1__weight_decay": 1e6}
    message = (
        r"stage1, update 1: the loss is \d.* the new adapter contains NaN or infinity"
    )
    with pytest.raises(UserError, match=message):
        training.train(small_config(folder, "overflow", **ONE, **changes))
    assert not list((folder / "overflow").glob("stage1/checkpoints/[0-9]*"))
    assert not (folder / "overflow/adapter").exists()


def test_examples_that_are_there_twice_are_counted(folder):
    corpus = make_corpus(folder / "twice", songs=3)
    lines = corpus.read_text().splitlines()
    corpus.write_text("\n".join([*lines, lines[0], lines[0], lines[1]]))
    changes = ONE | SHORT | {"corpus__path": str(corpus)}
    training.train(small_config(folder, "twice-run", **changes))
    about = json.loads((folder / "twice-run/stage1/examples.json").read_text())
    assert (about["examples"], about["repeated"]) == (4, 2)
    text = (folder / "twice-run/summary.txt").read_text()
    assert "2 examples are duplicates" in text


def test_stage2_alone_starts_from_a_given_adapter(folder):
    changes = {"stages": ("stage2",), "model__adapter": str(folder / "whole/adapter")}
    changes |= {"stage2__steps": 1, "stage2__warmup_steps": 0}
    training.train(small_config(folder, "second", **ONE, **changes))
    assert {stage for stage, *_ in losses(folder, "second")} == {"stage2"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, r"seed \(0, now 1\)"),
        ({"stage2__steps": 9}, r"stage2\.steps \(\d, now 9\)"),
        ({"corpus__train_split": "test"}, "corpus.train_split, records"),
        ({"stage1__prompt__end_sign": "."}, "stage1.prompt.end_sign"),
    ],
)
def test_a_folder_of_another_run_is_refused(folder, change, named):
    with pytest.raises(UserError, match=f"differs in {named}: choose another folder"):
        training.train(small_config(folder, "whole", **ONE | VALIDATING | change))


def test_a_finished_run_is_trained_for_longer_as_the_refusal_says(folder):
    longer = ONE | VALIDATING | {"stage2__steps": 9}
    with pytest.raises(UserError, match=r"with --config\.run=… \(to start") as refused:
        training.train(small_config(folder, "whole", **longer))
    (named,) = re.findall(r"--config\.model\.adapter=(\S+)\)", str(refused.value))
    again = ONE | {"stages": ("stage2",), "model__adapter": named}
    again |= {"stage2__steps": 1, "stage2__warmup_steps": 0}
    training.train(small_config(folder, "continued", **again))
    assert {stage for stage, *_ in losses(folder, "continued")} == {"stage2"}


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
            training.train(small_config(folder, "shared", **ONE, **SHORT))
        other.communicate(b"\n")
    training.train(small_config(folder, "shared", **ONE, **SHORT))


def test_a_replaced_song_is_another_run(folder):
    corpus = make_corpus(folder / "replaced", songs=3)
    changes = ONE | SHORT | {"corpus__path": str(corpus)}
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
    changes = ONE | VALIDATING | {"corpus__path": str(corpus)}
    config = small_config(folder, "whole", **changes)
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
        ({"mesh__data": 3}, "config.stage1.rows is 8, which is not divisible by"),
        ({"stage1__max_tokens": 4}, "none of the 5 examples fits"),
        ({"model__adapter": "other-window"}, "has window_frames 5, .* that belongs"),
    ],
)
def test_what_cannot_be_trained_is_refused(folder, change, message):
    if "model__adapter" in change:
        path = folder / change["model__adapter"]
        adapter = weights.load_adapter(folder / "whole/adapter", mesh=None)
        weights.save_adapter(
            adapter, path, dtype="float32", window_frames=5, trained_with=None
        )
        change = {"model__adapter": str(path)}
    with pytest.raises(UserError, match=message):
        training.train(small_config(folder, "refused", **{**ONE, **change}))


def test_a_stage_without_records_is_refused(folder, monkeypatch):
    corpus = make_corpus(folder / "captions")
    lines = [x for x in corpus.read_text().splitlines() if "question" not in x]
    corpus.write_text("\n".join(lines))
    config = small_config(
        folder, "captions-run", corpus__path=str(corpus), stages=("stage2",), **ONE
    )
    message = r"config.stage2.questions = 'questions' leaves .*stage2.questions=all"
    # Before anything is encoded.
    encode = pytest.fail
    monkeypatch.setattr(training.feature_cache, "prepare", encode)
    with pytest.raises(UserError, match=message):
        training.train(config)


def test_a_run_folder_that_cannot_be_written_is_refused(folder):
    (folder / "file").write_text("")
    config = small_config(folder, "file/run", **ONE)
    with pytest.raises(UserError, match=r"config.run: nothing can be written.*file"):
        training.train(config)
