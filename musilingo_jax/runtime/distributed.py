"""Several processes that work as one program: on a TPU pod, under SLURM, or by flags.

    python -m musilingo_jax.train --config=… --distributed
    python -m musilingo_jax.train --config=… --coordinator=10.0.0.1:8476 \\
        --processes=2 --process=0

The first finds the other processes of a TPU pod, of a SLURM or Open MPI job, and is the
same on each of them. The second is for any other machines: each process is told how
many there are and which one it is, and process 0 listens at the coordinator's address.
`launch/local.sh --processes=2` does it on one machine.

Either all of them end well or none does. One that fails says so to the others, which
stop at once with its sentence instead of waiting for it in the middle of an exchange;
one that is killed is missed after `HEARTBEAT` seconds at the latest, and then JAX ends
the others.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

import jax
from absl import flags

# The coordinator's key-value store is what `jax.distributed` offers nowhere in public;
# Orbax and others reach it in the same way.
from jax._src.distributed import global_state
from jax.errors import JaxRuntimeError

from musilingo_jax.runtime.errors import UsageError, UserError

FLAGS = ("distributed", "coordinator", "processes", "process", "connect_seconds")

# Seconds without a sign of life after which a process counts as dead.
HEARTBEAT = 60
# Seconds that a process which is done waits for the others; the last plots of a run or
# the scores of an evaluation are made by the first process alone.
_FAREWELL = 3600
# Seconds that process 0, by which all messages go, stays for the others to read that
# one has failed, and to end before they miss it: JAX aborts a process that does.
_LINGER = 2.0
_FAILED = "musilingo_jax/failed"

# The thread that waits for another process to fail, if there are others.
_listeners: list[threading.Thread] = []
# Held for good by whichever thread ends this process.
_ending = threading.Lock()


def define_flags() -> None:
    """Defines `--distributed`, and the flags that take its place elsewhere."""
    flags.DEFINE_bool(
        "distributed", False, "work with all processes of a TPU pod or SLURM job"
    )
    flags.DEFINE_string(
        "coordinator", None, "HOST:PORT at which process 0 listens, if not found by it"
    )
    flags.DEFINE_integer("processes", None, "how many there are", lower_bound=1)
    flags.DEFINE_integer("process", None, "which of them this is, from 0")
    flags.DEFINE_integer(
        "connect_seconds", 300, "how long to wait for each other", lower_bound=1
    )


def start() -> None:
    """Joins the other processes, if the flags say that there are any.

    To be called before anything asks JAX for a device.

    Raises:
      UserError: there are none, or they are not to be found that way.
      SystemExit: they were not all there within `--connect_seconds`; a sentence on
        stderr says who was missed and what to look at.
    """
    where = _said()
    if where is None:
        return
    coordinator, processes, process = where
    seconds = flags.FLAGS.connect_seconds
    label = "--distributed" if coordinator is None else f"process {process}"
    print(
        f"{label}: waiting for the other processes (up to {seconds} s)", file=sys.stderr
    )
    # It would take SIGTERM from us; `interruption.py` has a way of its own, which heeds
    # Ctrl-C, too.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        with _patience(seconds):
            jax.distributed.initialize(
                coordinator,
                processes,
                process,
                # What is said is not to be mixed with what a scheduler has said.
                cluster_detection_method=None if coordinator is None else "deactivate",
                # JAX would end the program without a word that helps: we are first.
                initialization_timeout=seconds + 60,
                heartbeat_timeout_seconds=HEARTBEAT,
                shutdown_timeout_seconds=_FAREWELL,
            )
    # Each scheduler, and the service that tells a TPU VM of the others, has its own.
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{label}: the other processes were not found ({said}); --distributed is "
            "for TPU pods, SLURM and Open MPI jobs, and anywhere else --coordinator="
            "HOST:PORT --processes=N --process=I say where they are"
        ) from error
    _listeners.append(threading.Thread(target=_listen, daemon=True))
    _listeners[0].start()


def finish() -> None:
    """Leaves the other processes in order, once all of them are done."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()
        # Which ends its waiting; Python must not end while it is in JAX's hands.
        _listeners.pop().join()


def fail(status: int, said: str) -> None:
    """Ends this process for all, if there are others; else does nothing.

    Without it, a process that fails would wait for the others at its end, and they for
    it in the middle of their work.

    Args:
      status: for the shell, and what the others end with, too.
      said: the sentence that the others repeat.
    """
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return
    _ending.acquire()
    with contextlib.suppress(JaxRuntimeError):  # Another one may have failed before.
        told = f"{status} process {jax.process_index()}: {said}"
        global_state.client.key_value_set(_FAILED, told)
    _exit(status)


def end_with_others() -> None:
    """Ends this process if another has failed; else does nothing.

    To be asked when an exchange breaks, before that is taken for an error of one's own.
    """
    if not jax.distributed.is_initialized():
        return
    with contextlib.suppress(JaxRuntimeError):  # The coordinator may be gone as well.
        _heed(global_state.client.key_value_try_get(_FAILED))


def propose(key: str, value: str) -> None:
    """Tells all processes the value of a key, unless one has told another before."""
    # To set a key that is set is an error, so that all see the same value.
    with contextlib.suppress(JaxRuntimeError):
        global_state.client.key_value_set(f"musilingo_jax/{key}", value)


def hear(key: str) -> str:
    """The value of a key, which it waits for until a process tells it."""
    return _await(f"musilingo_jax/{key}")


def told(key: str) -> str | None:
    """The value of a key, or None if no process has told it yet; does not wait."""
    try:
        return global_state.client.key_value_try_get(f"musilingo_jax/{key}")
    except JaxRuntimeError as error:
        if "NOT_FOUND" in str(error):
            return None
        raise


def _said() -> tuple[str | None, int | None, int | None] | None:
    """Coordinator, processes and process of the flags; None for one process."""
    values = flags.FLAGS
    where = values.coordinator, values.processes, values.process
    if where == (None, None, None):
        return where if values.distributed else None
    if None in where:
        raise UsageError(
            "--coordinator=HOST:PORT, --processes=N and --process=I belong together"
        )
    coordinator, processes, process = where
    host, _, port = coordinator.rpartition(":")
    if values.distributed:
        raise UsageError("--distributed finds by itself what --coordinator says")
    if not host or not port.isdecimal():
        raise UsageError(f"--coordinator={coordinator}: must be HOST:PORT")
    if not 0 <= process < processes:
        raise UsageError(
            f"--process={process} --processes={processes}: processes are counted from "
            f"0, so --process must be from 0 to {processes - 1}"
        )
    return where


@contextlib.contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Ends the program with a sentence if its body takes longer."""

    def give_up() -> None:
        print(f"error: {_missed(seconds)}", file=sys.stderr)
        _exit(1)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _missed(seconds: float) -> str:
    """Who was waited for in vain, and what to look at."""
    address = global_state.coordinator_address
    if address is None:
        return (
            f"--distributed: in {seconds} s nothing told where the other processes are;"
            " --coordinator=HOST:PORT --processes=N --process=I say it instead"
        )
    process, processes = global_state.process_id, global_state.num_processes
    host, _, port = address.rpartition(":")
    if process != 0:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            return (
                f"process {process} of {processes} could not reach process 0 at "
                f"{address} in {seconds} s ({error.strerror or error}): start process "
                "0, and see that the address is its own and no firewall is between"
            )
    return (
        f"process {process} of {processes} reached {address}, but not all of the others"
        f" were there in {seconds} s: start all {processes} of them, each with another "
        "--process, or raise --connect_seconds"
    )


def _listen() -> None:
    """Waits for another process to fail, and then ends this one."""
    try:
        said = _await(_FAILED)
    except JaxRuntimeError:
        return  # All is done, or JAX itself ends the program.
    _heed(said)


def _await(key: str) -> str:
    """Waits for a value, and looks up now and then, so that Ctrl-C is heeded."""
    client = global_state.client
    while True:
        try:
            return client.blocking_key_value_get(key, 1_000)
        except JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _heed(told: str) -> None:
    """Ends this process because of what another one has said in `fail`."""
    status, _, said = told.partition(" ")
    process = global_state.process_id
    if said.startswith(f"process {process}:"):
        return
    _ending.acquire()
    print(f"process {process} ends because of {said}", file=sys.stderr)
    _exit(int(status))


def _exit(status: int) -> None:
    """Ends the process as it stands, without waiting for any to end its work."""
    if global_state.process_id == 0 and global_state.service is not None:
        time.sleep(_LINGER)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
