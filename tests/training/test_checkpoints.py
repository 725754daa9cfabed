"""What is saved comes back bit for bit, on any mesh, and broken files are named."""

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.models.parts import Parts
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh, shardings
from musilingo_jax.runtime.signals import Interrupted
from musilingo_jax.training.checkpoints import Checkpoints
from musilingo_jax.training.train_step import TrainState

pytestmark = pytest.mark.medium


def make_state(seed):
    adapter = Parts(bridge=LinearBridge(6, 4, rngs=nnx.Rngs(seed)))
    optimiser = optax.adamw(1e-3)
    gradient = jax.tree.map(jnp.ones_like, adapter)
    _, moments = optimiser.update(gradient, optimiser.init(adapter), adapter)
    return TrainState(learning=adapter, optimiser=moments)


def like(state, mesh):
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        state,
        shardings(state, mesh),
    )


def test_a_state_comes_back_bit_for_bit_on_another_mesh(tmp_path):
    state, checkpoints = make_state(0), Checkpoints(tmp_path / "new", keep=2)
    assert checkpoints.latest() is None
    checkpoints.save(3, state, {"seed": 0}, None)
    checkpoints.close()

    checkpoints = Checkpoints(tmp_path / "new", keep=2)
    assert checkpoints.latest() == 3
    found = checkpoints.restore(3, like(state, make_mesh(2, 2, 2)))
    assert isinstance(found.learning.bridge, LinearBridge)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
        assert len(one.sharding.device_set) == 8
    saved = next((tmp_path / "new" / "3" / "config").iterdir())
    assert json.loads(saved.read_text()) == {"seed": 0}
    checkpoints.close()


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 4, 9):
        checkpoints.save(step, make_state(step), {}, None)
    checkpoints.close()
    assert sorted(p.name for p in tmp_path.glob("[0-9]*")) == ["4", "9"]


def test_the_best_is_kept_besides_the_newest(tmp_path):
    """And is known when the folder is opened again; of equals it is the later one."""
    losses = {1: None, 2: 0.3, 3: 0.1 + 0.2, 4: 0.4, 5: None, 6: None}
    for step, loss in losses.items():
        checkpoints = Checkpoints(tmp_path, keep=2)
        checkpoints.save(step, make_state(step), {}, loss)
        checkpoints.close()
    assert sorted(p.name for p in tmp_path.glob("[0-9]*")) == ["2", "5", "6"]
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.best() == (2, 0.3)
    checkpoints.save(7, make_state(7), {}, 0.3)
    assert checkpoints.best() == (7, 0.3)
    checkpoints.close()


def test_without_validation_none_is_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.best() is None
    checkpoints.save(1, make_state(1), {}, None)
    assert checkpoints.best() is None
    checkpoints.close()


def test_an_unfinished_checkpoint_does_not_count(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, make_state(1), {}, None)
    checkpoints.close()
    shutil.copytree(tmp_path / "1", tmp_path / "2.orbax-checkpoint-tmp")
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest() == 1
    checkpoints.close()


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ("d/*", b""),
        ("d/*", slice(-20)),
        ("manifest.ocdbt", slice(20)),
        ("_METADATA", b"garbage"),
        ("_METADATA", b"[1]"),
    ],
)
def test_a_broken_checkpoint_is_named(tmp_path, capfd, caplog, files, left):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        state = make_state(0)
        checkpoints.save(5, state, {}, None)
    for path in (tmp_path / "5" / "state").rglob(files):
        content = path.read_bytes()[left] if isinstance(left, slice) else left
        path.write_bytes(content)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        message = r"5 cannot be read: .*\. Delete that folder"
        with pytest.raises(UserError, match=message) as refused:
            checkpoints.restore(5, like(state, make_mesh(1, 1, 1)))
    assert "tensorstore_spec" not in str(refused.value)
    # Nor is anything printed or logged by the threads that were still reading.
    assert "Event loop is closed" not in capfd.readouterr().err
    assert not caplog.records


@pytest.mark.parametrize(
    "content",
    [
        b"garbage",
        b"[1]",
        b'{"validation_loss": "x"}',
        b'{"validation_loss": 0.4}',
        '{"validation_loss": 0.5}'.encode("utf-16"),
        '{"validation_loss": 0.5}'.encode("utf-8-sig"),
        b"[" * 100_000,
    ],
)
def test_a_broken_loss_is_named(tmp_path, content):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(5, make_state(0), {}, 0.5)
    (tmp_path / "5/metrics/metrics").write_bytes(content)
    with pytest.raises(UserError, match=r"5 cannot be read: .*metrics/metrics"):
        Checkpoints(tmp_path, keep=2)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(
        UserError, match="checkpoints: is a file, but should be the folder"
    ):
        Checkpoints(tmp_path / "checkpoints", keep=2)


# Too little space for an array, which TensorStore writes, then for a name in JSON.
# It is never freed: what Orbax still writes in the background must not succeed later.
SAVE = """
import resource, signal
from pathlib import Path
from test_checkpoints import make_state
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.training.checkpoints import Checkpoints

def main(argv):
    array, json = (Path(argv[1]) / name for name in ("array", "json"))
    for folder in (array, json):
        with Checkpoints(folder, keep=2) as checkpoints:
            checkpoints.save(1, make_state(1), {}, 0.5)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        save_second(array, 300)
    except UserError as error:
        print(error, flush=True)
    save_second(json, 20)

def save_second(folder, room):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(2, make_state(2), {}, 0.4)

cli.run(main)
"""


def test_a_full_disk_is_reported_in_one_line_and_older_checkpoints_are_kept(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SAVE, str(tmp_path)],
        cwd=Path(__file__).parent,
        # Pipes, since the limit holds for files, and so for what is printed into one.
        capture_output=True,
        text=True,
    )
    reason = "there is no space left (File too large): free some and"
    assert done.stdout.startswith(f"{tmp_path / 'array'}: {reason}")
    assert done.stderr.startswith(f"error: {tmp_path / 'json'}: {reason}")
    assert done.stdout.count("\n") == done.stderr.count("\n") == 1
    assert done.returncode == 1
    for folder in (tmp_path / "json", tmp_path / "array"):
        with Checkpoints(folder, keep=2) as checkpoints:
            assert checkpoints.latest() == 1
            checkpoints.save(2, make_state(2), {}, 0.4)
            assert checkpoints.best() == (2, 0.4)


@pytest.mark.parametrize(
    ("end", "waits"), [(None, 1), (UserError("it ends"), 1), (Interrupted(15), 0)]
)
def test_an_interrupted_program_does_not_wait(tmp_path, monkeypatch, end, waits):
    """The process that it would wait for may have ended."""
    checkpoints, calls = Checkpoints(tmp_path, keep=2), []
    monkeypatch.setattr(checkpoints._manager, "close", lambda: calls.append("close"))
    with contextlib.suppress(UserError, Interrupted), checkpoints:
        if end is not None:
            raise end
    assert len(calls) == waits
