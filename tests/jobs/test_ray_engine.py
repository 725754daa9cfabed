"""What this process decides about actors: who gets which shard, and who is replaced."""

import types
from collections import deque

import pytest
from helpers.letter_job import files, run

from musilingo_jax.jobs import flags, ray_engine
from musilingo_jax.jobs.engine import Engine
from musilingo_jax.runtime.command_line import CommandParser
from musilingo_jax.runtime.errors import UsageError, UserError


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        self.cause = cause


class Ref:
    """A result that is made when it is waited for."""

    def __init__(self, make):
        self.make = make


class FakeRay:
    """Actors that work in turn in this process, of which some are lost on the way."""

    exceptions = types.SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, lose=(), resources=None):
        self.lose = deque(lose)  # Of the shards that are asked for, those that fail.
        self.resources = resources or {"CPU": 3.0}
        self.started, self.killed, self.most, self.asked = 0, 0, 0, 0
        self.needs = None

    def init(self, **_):
        pass

    def shutdown(self):
        pass

    def cluster_resources(self):
        return self.resources

    def put(self, value):
        return value

    def kill(self, actor):
        self.killed += 1

    def remote(self, **needs):
        self.needs = needs
        return lambda kind: types.SimpleNamespace(
            remote=lambda load: self._actor(kind(load))
        )

    def _actor(self, worker):
        self.started += 1
        state = types.SimpleNamespace(lost=False)

        def method(call, is_shard):
            def remote(*arguments):
                self.asked += is_shard
                number = self.asked - 1 if is_shard else None

                def make():
                    if number in self.lose:
                        self.lose.remove(number)
                        state.lost = True
                    if state.lost:
                        raise RayError("its node has died\nmore")
                    try:
                        return call(*arguments)
                    except UserError as error:
                        raise RayTaskError(error) from error

                return Ref(make)

            return types.SimpleNamespace(remote=remote)

        return types.SimpleNamespace(
            start=method(worker.start, False), make=method(worker.make, True)
        )

    def wait(self, expected, num_returns, timeout):
        self.most = max(self.most, len(expected))
        assert expected
        return expected[:num_returns], expected[num_returns:]

    def get(self, ref):
        return ref.make()


@pytest.fixture
def cluster(monkeypatch):
    def cluster(**about):
        fake = FakeRay(**about)
        monkeypatch.setattr(ray_engine, "_ray", lambda: fake)
        return fake

    return cluster


RAY = Engine("ray", "auto", 0, 1)


@pytest.mark.parametrize("lose", [(), (0,), (1, 3, 4), (5, 6)])
def test_the_files_are_those_of_one_process_whoever_is_lost(
    tmp_path, cluster, lose, capsys
):
    fake = cluster(lose=lose)
    run(tmp_path / "one", bad=["xx2"])
    run(tmp_path / "ray", engine=RAY, bad=["xx2"])
    assert files(tmp_path / "ray") == files(tmp_path / "one")
    happened = len(lose) - len(fake.lose)  # Some are in the hands of one that is lost.
    assert fake.started == 3 + happened >= 3 + bool(lose)
    # No more than two shards each: the others stay here.
    assert fake.most <= 2 * 3
    assert fake.killed == 3
    shown = capsys.readouterr().err
    assert shown.count("was lost (its node has died)") == happened
    written = (tmp_path / "ray/journal").glob("*")
    lost = [line for path in written for line in path.open() if '"lost"' in line]
    assert len(lost) == happened


def test_a_shard_that_ends_its_processes_ends_the_job(tmp_path, cluster):
    cluster(lose=range(99), resources={"CPU": 1.0})
    with pytest.raises(UserError, match="shard 0: 4 processes of the Ray cluster were"):
        run(tmp_path, engine=RAY)


def test_processes_that_never_start_end_the_job(tmp_path, cluster, monkeypatch):
    fake = cluster()

    def lost(ref):
        raise RayError("no memory")

    fake.get = lost
    with pytest.raises(UserError, match="8 processes .* before they made .* no memory"):
        run(tmp_path, engine=RAY)


def test_an_error_of_the_job_is_told_as_it_is(tmp_path, cluster, monkeypatch):
    cluster()

    def refuse(*_):
        raise UserError("the model is not found")

    monkeypatch.setattr(ray_engine._Worker, "start", refuse)
    with pytest.raises(UserError, match="^the model is not found$"):
        run(tmp_path, engine=RAY)


@pytest.mark.parametrize(
    ("resources", "needs", "most"),
    [
        ({"CPU": 16.0}, {"num_cpus": 4}, 4),
        ({"CPU": 1.0}, {"num_cpus": 4}, 1),
        ({"CPU": 64.0, "GPU": 8.0}, {"num_gpus": 1, "num_cpus": 1}, 8),
        ({"CPU": 64.0, "TPU": 4.0}, {"resources": {"TPU": 1}, "num_cpus": 1}, 4),
    ],
)
def test_an_actor_has_a_device_of_its_own(resources, needs, most):
    assert ray_engine._needs(resources, 4) == (needs, most)


def test_without_ray_or_a_cluster_there_is_a_sentence(tmp_path, monkeypatch, cluster):
    fake = cluster()

    def nowhere(**_):
        raise ConnectionError("Could not find any running Ray instance.\nMore")

    fake.init = nowhere
    with pytest.raises(UserError, match=r"=auto: there is no Ray cluster \(Could not"):
        run(tmp_path, engine=RAY)
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match="--engine=ray needs Ray: pip install"):
        run(tmp_path, engine=RAY)


def parse(*words):
    parser = CommandParser()
    flags.add(parser)
    parser.add_argument("--retry", action="store_true")
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--actors=2"], "--actors is for --engine=ray"),
        (["--address=auto"], "--address is for --engine=ray"),
        (["--engine=ray", "--tasks=2"], "--engine=ray shares the work itself"),
        (["--task=2", "--tasks=2"], "--task must be from 0 to 1"),
        (["--task=-1"], "--task must be from 0 to 0"),
        (["--tasks=2", "--retry"], "start it once, without --tasks"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(words, message):
    with pytest.raises(UsageError, match=message):
        given = parse(*words)
        flags.engine(given)
        flags.share(given)


def test_flags_become_an_engine_and_a_share():
    given = parse("--engine=ray", "--address=ray://h:1", "--actors=2", "--cpus=3")
    assert flags.engine(given) == Engine("ray", "ray://h:1", 2, 3)
    given = parse("--task=1", "--tasks=4")
    assert flags.share(given) == (1, 4) and flags.engine(given).name == "local"
