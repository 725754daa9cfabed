"""What happens inside of a program that the campaign runs: limits, and its own death.

The functions without an underscore return Python text for `prelude` of
`helpers.programs.run`, which the program's process executes first.
"""

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
# Nothing handles it, so it ends the process.
IDLE_SIGNAL = signal.SIGUSR1
# A process that has used less CPU than this in `idle` seconds waits for something.
_IDLE_CPU = 0.05
# Of Linux: see capabilities(7).
_CAPABILITY_VERSION = 0x20080522
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1 << 1, 1 << 2
_CHANGES = (
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.remove",
    "os.link",
    "os.symlink",
    "os.truncate",
)


def limits(*, cpu: int, memory: int, idle: float) -> str:
    """Ends the program by a signal when it hangs, or denies it memory.

    None of the limits depends on how busy the machine is.

    Args:
      cpu: seconds of processor time, then SIGXCPU.
      memory: bytes that it may map beyond what it began with; more is refused.
      idle: seconds without processor time, then `IDLE_SIGNAL`: it waits for something
        that does not come.
    """
    return _call("_limit", cpu, memory, idle)


def kill_at_change(number: int, signal_number: int, ending: str = "") -> str:
    """Sends the program a signal before it changes a file for the `number`th time.

    Changes are what Python's audit hooks see in the working folder: files opened to be
    written, renamed, linked or removed, folders made or removed. With `ending` only
    paths that end so are counted.
    """
    return _call("_kill_at_change", number, int(signal_number), ending)


def kill_at_cpu(seconds: float, signal_number: int) -> str:
    """Sends the program a signal when it has used that much processor time."""
    return _call("_kill_at_cpu", seconds, int(signal_number))


def count_changes(path: Path) -> str:
    """At its end, the program writes "changes seconds": of files, and of processor."""
    return _call("_count_changes", str(path))


def fail_writes(above: int) -> str:
    """No file can grow beyond a size, as on a full disk, or with a quota."""
    return _call("_fail_writes", above)


def sines() -> str:
    """Lets the recipe render with sines, as `helpers/sine_soundfont.py` does."""
    return _call("_play_sines")


def obey_permissions() -> str:
    """Takes root's right to open every file away from the program."""
    return _call("_obey_permissions")


def _call(name: str, *arguments: object) -> str:
    return (
        f"import sys; sys.path.append({str(TESTS)!r})\n"
        f"from campaign import inside\n"
        f"inside.{name}{(*arguments,)!r}\n"
        f"sys.path.remove({str(TESTS)!r})\n"
    )


def _limit(cpu: int, memory: int, idle: float) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 30))
    mapped = int(Path("/proc/self/statm").read_text().split()[0])
    allowed = mapped * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
    threading.Thread(target=_watch_idle, args=(idle,), daemon=True).start()


def _watch_idle(seconds: float) -> None:
    used, since = time.process_time(), time.monotonic()
    while True:
        time.sleep(min(1.0, seconds / 4))
        if time.process_time() - used > _IDLE_CPU:
            used, since = time.process_time(), time.monotonic()
        elif time.monotonic() - since > seconds:
            os.kill(os.getpid(), IDLE_SIGNAL)


def _play_sines() -> None:
    from helpers import sine_soundfont

    sys.modules["tinysoundfont"] = sine_soundfont.stand_in()  # type: ignore
    os.cpu_count = lambda: 1


def _obey_permissions() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    # For capabilities 0–31, then 32–63: effective, permitted, inheritable.
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    sets[0] &= ~(_DAC_OVERRIDE | _DAC_READ_SEARCH)
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


class _Changes:
    """An audit hook that counts changes of files in the working folder."""

    def __init__(self, number: int = 0, signal_number: int = 0, ending: str = ""):
        self.count = 0
        self.number = number
        self.signal = signal_number
        self.ending = ending
        self.folder = os.getcwd() + os.sep
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
            changes = bool(flags & writes if flags else mode and "r" not in mode)
        elif event in _CHANGES:
            path, changes = arguments[0], True
        else:
            return
        if not changes or not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(path))
        if path.startswith(self.folder) and path.endswith(self.ending):
            self.count += 1
            if self.count == self.number:
                os.kill(os.getpid(), self.signal)


def _kill_at_change(number: int, signal_number: int, ending: str) -> None:
    _Changes(number, signal_number, ending)


def _kill_at_cpu(seconds: float, signal_number: int) -> None:
    def watch() -> None:
        while time.process_time() < seconds:
            time.sleep(0.002)
        os.kill(os.getpid(), signal_number)

    threading.Thread(target=watch, daemon=True).start()


def _count_changes(path: str) -> None:
    import atexit

    changes = _Changes()
    atexit.register(
        lambda: Path(path).write_text(f"{changes.count} {time.process_time()}")
    )


def _fail_writes(above: int) -> None:
    # Else the process would be ended where it should get the error.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (above, above))
