"""Training end to end on random models: exact resumes, equal meshes, clear refusals."""

import json
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
import optax
import pytest
from flax import nnx
from safetensors.numpy import load_file
from small_run import (
    make_corpus,
    make_models,
    small_config,
    small_flags,
    start_training,
)

from musilingo_jax import journal as journals
from musilingo_jax import train as training
from musilingo_jax import weights
from musilingo_jax.checkpoints import TrainState
from musilingo_jax.errors import UserError
from musilingo_jax.models.adapter import Adapter
from musilingo_jax.models.musilingo import Batch, answer_loss
from musilingo_jax.sharding import make_mesh, shardings
from musilingo_jax.stages import StageConfig

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
    return [(row["stage"], row["step"], row["loss"]) for row in metrics(folder, run)]


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
    original = journals.Journal.add

    def add(journal, done, report):
        original(journal, done, report)
        if journal._name == "stage2" and done == 4:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(journals.Journal, "add", add)
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


def test_accumulated_batches_are_one_large_batch(folder):
    """Of very unequal answers, so that a mean of means would be another number."""
    llama = weights.load_language_model(
        str(folder / "language_model"), dtype="float32", mesh=None
    )
    mesh = make_mesh(1, 1, 1)
    rng = np.random.default_rng(0)
    targets = np.full((8, 6), -1, np.int32)
    for row in range(8):
        targets[row, : 1 + row % 6] = 5 + np.arange(1 + row % 6)
    batch = Batch(
        features=rng.normal(size=(8, 2, 16)).astype(np.float32),
        tokens=rng.integers(3, 200, (8, 12)).astype(np.int32),
        audio_slot=np.tile([-1, 0, 1] + [-1] * 9, (8, 1)).astype(np.int32),
        segments=np.ones((8, 12), np.int32),
        positions=np.tile(np.arange(12, dtype=np.int32), (8, 1)),
        targets=targets,
    )
    adapter = Adapter(16, 32, rngs=nnx.Rngs(0))
    (total, count), gradient = jax.value_and_grad(answer_loss, has_aux=True)(
        adapter, llama, batch, remat=False
    )
    assert count == (targets >= 0).sum()
    optimiser = optax.sgd(1.0)
    config = StageConfig.from_config(small_config(folder, "x"), "stage1")
    for batch_size, accumulate in ((8, 1), (2, 4)):
        fields = {f: getattr(config, f) for f in StageConfig.__annotations__}
        fields |= {"batch_size": batch_size, "accumulate": accumulate}
        state = TrainState(
            adapter=jax.tree.map(jnp.copy, adapter), optimiser=optimiser.init(adapter)
        )
        update = training.make_update(
            StageConfig(**fields), optimiser, shardings(state, mesh)
        )
        state, report = update(state, llama, batch)
        np.testing.assert_allclose(report.loss, total / count, rtol=1e-6)
        for new, old, slope in zip(
            *map(jax.tree.leaves, (state.adapter, adapter, gradient)), strict=True
        ):
            np.testing.assert_allclose(old - new, slope / count, rtol=1e-3, atol=1e-7)


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
    hold = "from musilingo_jax import files; from pathlib import Path; import sys; "
    hold += (
        "files.claim(Path(sys.argv[1]), doing='training'); print(flush=True); input()"
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


def test_a_stage_without_records_is_refused(folder):
    corpus = make_corpus(folder / "captions")
    lines = [x for x in corpus.read_text().splitlines() if "question" not in x]
    corpus.write_text("\n".join(lines))
    config = small_config(
        folder, "captions-run", corpus__path=str(corpus), stages=("stage2",), **ONE
    )
    with pytest.raises(
        UserError, match=r"config.stage2.questions = 'questions' leaves"
    ):
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
            "cut": 4,
            "too_long": 5,
            "without_audio": 6,
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
    assert "4 answers were cut at 32 tokens" in text
    assert "5 examples longer than 96 tokens were left out" in text
    assert "6 examples were left out because their song" in text
    assert "7 records of the training split were not learnt from" in text
    assert "a.wav: is empty" in text
    assert "elsewhere" not in text
    assert "1 h 2 min 3 s" in text
