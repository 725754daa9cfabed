"""Runs a program: from the command line to an exit status."""

import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import IO, Any

from absl import app, logging
from tqdm import tqdm

from musilingo_jax.runtime import (
    command_line,
    distributed,
    failures,
    platforms,
    signals,
    tested_versions,
)
from musilingo_jax.runtime.command_line import (
    CommandParser,
    define_config,
    required_config,
)
from musilingo_jax.runtime.errors import UserError, causes
from musilingo_jax.runtime.printable import one_line, print_note, protect_output

__all__ = ["define_config", "progress", "required_config", "run"]

# Seconds that a program which has failed waits for its threads to end.
THREAD_TIMEOUT = 5.0

# What a shell reports of a program that SIGPIPE has ended.
_CLOSED_OUTPUT = 128 + signal.SIGPIPE


def progress(
    iterable: Iterable | None = None, *, total: int, unit: str, label: str, **options
) -> tqdm:
    """A progress bar on stderr with rate and remaining time; the label is one line."""
    return _Bar(
        iterable,
        total=total,
        unit=unit,
        desc=one_line(label),
        file=sys.stderr,
        dynamic_ncols=True,
        **options,
    )


class _Bar(tqdm):
    """A progress bar that checks for signals at each step."""

    def update(self, n: float | None = 1) -> bool | None:
        signals.check_signals()
        return super().update(n)


def run(
    main: Callable[[Any], None],
    parser: CommandParser | None = None,
    *,
    arguments: str = "",
) -> None:
    """Runs a program: parses its command line, calls `main`, and exits.

    Exit status:
      0    success, `--help` included
      1    a `UserError`, or a bug
      2    a wrong command line (`UsageError`)
      130  ended by Ctrl-C
      141  whoever read the output has closed it, as `| head` does
      143  ended by SIGTERM

    A `UserError` and a signal print one sentence on stderr; a bug prints a traceback;
    closed output prints nothing. Where several processes work together, one that fails
    ends all of them.

    Args:
      main: gets what `parser` returns, or without one the program's name and the
        arguments that are not flags.
      parser: of a program with subcommands.
      arguments: the arguments that are not flags, for the help of a program without
        subcommands.
    """
    # Orbax logs every thread that it starts; `--verbosity=0` shows that.
    logging.set_verbosity(logging.WARNING)
    protect_output()
    # A second signal, or one after `main` has ended, ends the process at once. Python's
    # own handler of Ctrl-C would print a traceback.
    signals.restore_system_handlers()

    def parse(argv: list[str]) -> Any:
        if parser is not None:
            given = parser.parse(argv)
        elif command_line.wants_help(argv):
            print(_help(arguments), end="")
            sys.exit()
        else:
            given = command_line.parse_flags(argv)
        tested_versions.warn()
        return given

    try:
        with signals.raise_at_once():
            app.run(main, flags_parser=parse)  # Always raises SystemExit.
    except BaseException as error:
        status, reason = _explain(_flush_output(error))
        if status == 0:
            distributed.finish()
        else:
            distributed.fail(status, reason)
            _limit_exit_time(status)
        sys.exit(status)


def program_name() -> str:
    """How the running program is started: `python -m musilingo_jax.train`."""
    spec = sys.modules["__main__"].__spec__
    if spec is None:
        return f"python {sys.argv[0]}"
    return f"python -m {spec.name.removesuffix('.__main__')}"


def _help(arguments: str) -> str:
    usage = " ".join(filter(None, (program_name(), arguments, "[flags]")))
    return command_line.help_text(sys.modules["__main__"].__doc__ or "", usage)


def _flush_output(outcome: BaseException) -> BaseException:
    """Writes what is left of the output, which Python would only do at its very end.

    Returns:
      The outcome of the program: as it was, or that its output is closed or cannot be
      written.
    """
    write_failed = any(isinstance(e, BrokenPipeError) for e in causes(outcome))
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
            closed = write_failed and _has_no_reader(stream)
        except BrokenPipeError:
            closed = True
        except OSError as error:
            _discard(stream)
            closed = False
            # What else went wrong comes first.
            if isinstance(outcome, SystemExit) and not outcome.code:
                reason = error.strerror or str(error)
                outcome = UserError(f"the output cannot be written ({reason})")
        if closed:
            _discard(stream)
            outcome = SystemExit(_CLOSED_OUTPUT)
    return outcome


def _has_no_reader(stream: IO[str]) -> bool:
    """Whether a stream is a pipe whose other end is closed."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _discard(stream: IO[str]) -> None:
    """Sends what is still written to a stream nowhere; Python flushes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _explain(outcome: BaseException) -> tuple[int, str]:
    """Prints why a program has ended.

    Returns:
      The exit status, and the reason for other processes; "" for success.
    """
    match outcome:
        case SystemExit(code=None | 0):
            return 0, ""
        case SystemExit(code=int() as status):
            return status, f"it exited with status {status}"
        case SystemExit():
            status, reason = 1, str(outcome.code)
            text = reason
        case UserError():
            status, reason = outcome.exit_code, str(outcome)
            text = f"error: {reason}"
        case KeyboardInterrupt():
            interrupted = isinstance(outcome, signals.Interrupted)
            status, reason = (
                outcome.status if interrupted else 130,
                "it was interrupted",
            )
            text = "interrupted: finished work is kept; the same command resumes."
        case _ if failure := _failure_of_machine(outcome):
            return _explain(failure)
        case _:
            status, reason = 1, f"{type(outcome).__name__}: {outcome}"
            text = "".join(traceback.format_exception(outcome)).rstrip()
    try:
        print_note(text)
    except OSError:
        # What is left in its buffer would change the status at the end of Python 3.13.
        _discard(sys.stderr)
    return status, reason


def _failure_of_machine(outcome: BaseException) -> UserError | None:
    """The message for an error that is no bug but a failure of the machine."""
    # Others fail first where an exchange broke because one of them had failed.
    distributed.end_with_others()
    return platforms.failure(outcome) or failures.explain(outcome)


def _limit_exit_time(status: int) -> None:
    """Ends the process after `THREAD_TIMEOUT`, with or without its threads.

    Python waits for all threads. One of a library may itself wait for what has just
    failed: Orbax's wait for ten minutes.
    """

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    timer = threading.Timer(THREAD_TIMEOUT, leave)
    timer.daemon = True
    timer.start()
