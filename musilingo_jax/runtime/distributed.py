r"""Several processes that work as one program: on a TPU pod, under SLURM, or by flags.

    python -m musilingo_jax.train --config=tiny --distributed
    python -m musilingo_jax.train --config=tiny --coordinator=10.0.0.1:8476 \
        --processes=2 --process=0

The first form finds the other processes of a TPU pod, or of a SLURM or Open MPI job,
and is the same command for each of them. The second is for any other machines: flags
tell each process how many there are and which one it is, and process 0 listens at the
coordinator's address. `launch/local.sh --processes=2` does this on one machine.

Either all processes succeed or none does. A process that fails tells the others, which
then stop at once with its message instead of waiting for it in the middle of a
collective. A process that is killed is noticed after `HEARTBEAT` seconds at the latest;
then JAX ends the others.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from absl import flags
from jax.errors import JaxRuntimeError

from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.printable import print_note, printable

# These flags belong to the programs that call `define_flags`.
flags.disclaim_key_flags()

FLAGS = ("distributed", "coordinator", "processes", "process", "connect_seconds")

# Seconds without a sign of life after which a process counts as dead.
HEARTBEAT = 60
# Seconds that a process which is done waits for the others. The first process alone
# draws the last plots of a run and computes the scores of an evaluation.
_SHUTDOWN_TIMEOUT = 3600
# Seconds that process 0, which serves the key-value store, stays after a failure: the
# others read the message, and exit before JAX aborts them for having lost process 0.
_LINGER = 2.0
_FAILURE_KEY = "musilingo_jax/failed"

# The thread that waits for another process to fail, if there are others.
_listeners: list[threading.Thread] = []
# Acquired, and never released, by the thread that ends this process.
_ending = threading.Lock()


def define_flags() -> None:
    """Defines `--distributed`, and the flags that replace it where it does not work."""
    flags.DEFINE_bool(
        "distributed", False, "join the other processes of a TPU pod or SLURM job"
    )
    flags.DEFINE_string(
        "coordinator", None, "HOST:PORT of process 0, where --distributed does not work"
    )
    flags.DEFINE_integer(
        "processes", None, "how many processes there are", lower_bound=1
    )
    flags.DEFINE_integer("process", None, "the number of this process, from 0")
    flags.DEFINE_integer(
        "connect_seconds", 300, "how long to wait for the others", lower_bound=1
    )


def start() -> None:
    """Joins the other processes, if the flags say that there are others.

    Must be called before anything asks JAX for a device.

    Raises:
      UserError: the flags contradict each other, or the others cannot be found.
      SystemExit: not all of them connected within `--connect_seconds`; a sentence on
        stderr says which connection failed and what to check.
    """
    address = _address_from_flags()
    if address is None:
        return
    coordinator, processes, process = address
    seconds = flags.FLAGS.connect_seconds
    label = "--distributed" if coordinator is None else f"process {process}"
    print_note(f"{label}: waiting for the other processes (up to {seconds} s)")
    # JAX's service would take SIGTERM from `signals.py`, which also handles Ctrl-C.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        with _time_limit(seconds):
            jax.distributed.initialize(
                coordinator,
                processes,
                process,
                # Never mix the flags' address with one from a scheduler.
                cluster_detection_method=None if coordinator is None else "deactivate",
                # Later than `_time_limit`: JAX would end the process without advice.
                initialization_timeout=seconds + 60,
                heartbeat_timeout_seconds=HEARTBEAT,
                shutdown_timeout_seconds=_SHUTDOWN_TIMEOUT,
            )
    # Each scheduler, and the metadata service of TPU VMs, raises errors of its own.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{label}: the other processes were not found ({reason}); --distributed is "
            "for TPU pods, SLURM and Open MPI jobs. Anywhere else, give each process "
            "--coordinator=HOST:PORT --processes=N --process=I"
        ) from error
    _listeners.append(threading.Thread(target=_listen, daemon=True))
    _listeners[0].start()


def finish() -> None:
    """Disconnects from the other processes, once all of them are done."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()
        # This ends the listener's wait. Python must not end while it is in JAX's code.
        _listeners.pop().join()


def fail(status: int, reason: str) -> None:
    """Ends this process and all others, if there are others; else does nothing.

    Without it, a process that fails would wait for the others at its end, and they for
    it in the middle of their work.

    Args:
      status: the exit status of all processes.
      reason: what failed, which the others print.
    """
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return
    _ending.acquire()
    with contextlib.suppress(JaxRuntimeError):  # Another one may have failed before.
        message = f"{status} process {jax.process_index()}: {reason}"
        _jax_state().client.key_value_set(_FAILURE_KEY, message)
    _exit(status)


def end_with_others() -> None:
    """Ends this process if another one has failed; else does nothing.

    To be called when a collective fails, before that counts as an error of this
    process.
    """
    if not jax.distributed.is_initialized():
        return
    with contextlib.suppress(JaxRuntimeError):  # The coordinator may be gone as well.
        _end_because_of(_jax_state().client.key_value_try_get(_FAILURE_KEY))


def set_once(key: str, value: str) -> None:
    """Sets a key for all processes, unless one of them has set it before."""
    # To set a key twice is an error, so all processes see the same value.
    with contextlib.suppress(JaxRuntimeError):
        _jax_state().client.key_value_set(f"musilingo_jax/{key}", value)


def wait_for(key: str) -> str:
    """The value of a key; waits until a process has set it."""
    return _wait_for_key(f"musilingo_jax/{key}")


def get_now(key: str) -> str | None:
    """The value of a key, or None if no process has set it; does not wait."""
    try:
        return _jax_state().client.key_value_try_get(f"musilingo_jax/{key}")
    except JaxRuntimeError as error:
        if "NOT_FOUND" in str(error):
            return None
        raise


def _jax_state() -> Any:
    """JAX's own record of the processes: its `client` is their key-value store.

    `jax.distributed` offers neither the store nor, before all processes are connected,
    the coordinator's address and this process's number. Orbax takes them from here,
    too. A test says what to do when a version of JAX moves them; until then only runs
    of several processes fail.
    """
    from jax._src.distributed import global_state

    return global_state


def _address_from_flags() -> tuple[str | None, int | None, int | None] | None:
    """Coordinator, processes and process: three Nones to find them, None to be alone.

    Raises:
      UsageError: the flags contradict each other.
    """
    given = flags.FLAGS
    address = given.coordinator, given.processes, given.process
    if address == (None, None, None):
        if given["connect_seconds"].present and not given.distributed:
            raise UsageError(
                "--connect_seconds is for several processes: give --distributed, or "
                "--coordinator, --processes and --process"
            )
        return address if given.distributed else None
    if None in address:
        raise UsageError(
            "--coordinator=HOST:PORT, --processes=N and --process=I belong together"
        )
    coordinator, processes, process = address
    host, _, port = coordinator.rpartition(":")
    if given.distributed:
        raise UsageError(
            "--distributed finds the coordinator itself: leave out either it or "
            "--coordinator, --processes and --process"
        )
    if not host or not port.isdecimal():
        raise UsageError(f"--coordinator={coordinator}: must be HOST:PORT")
    if not 0 <= process < processes:
        raise UsageError(
            f"--process={process} --processes={processes}: processes are counted from "
            f"0, so --process must be from 0 to {processes - 1}"
        )
    return address


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Ends the process with a message if the block takes longer."""

    def give_up() -> None:
        print_note(f"error: {_connection_problem(seconds)}")
        _exit(1)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _connection_problem(seconds: float) -> str:
    """Which connection was not made in time, and what to check."""
    state = _jax_state()
    address = state.coordinator_address
    if address is None:
        return (
            f"--distributed: the other processes were not found in {seconds} s; give "
            "each process --coordinator=HOST:PORT --processes=N --process=I instead"
        )
    process, processes = state.process_id, state.num_processes
    host, _, port = address.rpartition(":")
    if process != 0:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            return (
                f"process {process} of {processes} could not reach process 0 at "
                f"{address} in {seconds} s ({error.strerror or error}): start process "
                "0, and check that this is its address and that no firewall blocks it"
            )
    return (
        f"process {process} of {processes} reached {address}, but not all of the others"
        f" did in {seconds} s: start all {processes} of them, each with its own "
        "--process, or raise --connect_seconds"
    )


def _listen() -> None:
    """Waits for another process to fail, and then ends this one."""
    try:
        message = _wait_for_key(_FAILURE_KEY)
    except JaxRuntimeError:
        return  # All processes are done, or JAX itself ends this one.
    _end_because_of(message)


def _wait_for_key(key: str) -> str:
    """The value of a key, once it is set; wakes up every second to handle Ctrl-C."""
    client = _jax_state().client
    while True:
        try:
            return client.blocking_key_value_get(key, 1_000)
        except JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _end_because_of(message: str) -> None:
    """Ends this process because of what another one has written in `fail`."""
    status, _, failure = message.partition(" ")
    process = _jax_state().process_id
    if failure.startswith(f"process {process}:"):
        return
    _ending.acquire()
    words = printable(f"process {process} ends because of {failure}")
    print_note(words)
    _exit(int(status))


def _exit(status: int) -> None:
    """Ends the process at once, without waiting for other threads or processes."""
    state = _jax_state()
    if state.process_id == 0 and state.service is not None:
        time.sleep(_LINGER)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
