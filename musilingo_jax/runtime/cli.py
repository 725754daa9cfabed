"""The command line: flags in, one clear sentence out when something is wrong."""

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable

from absl import app, flags, logging
from ml_collections import config_flags
from tqdm import tqdm

from musilingo_jax.runtime import distributed, signals
from musilingo_jax.runtime.errors import UsageError, UserError

# Seconds that a program which has failed waits for its threads.
PATIENCE = 5.0


def define_config() -> None:
    """Defines `--config=configs/x.py`, whose keys `--config.a.b=1` overrides."""
    config_flags.DEFINE_config_file(
        "config", None, "the experiment: a file of configs/", lock_config=True
    )


def progress(
    iterable: Iterable | None = None, *, total: int, unit: str, label: str, **options
) -> tqdm:
    """A progress bar on stderr with rate and time left."""
    return _Bar(
        iterable,
        total=total,
        unit=unit,
        desc=label,
        file=sys.stderr,
        dynamic_ncols=True,
        **options,
    )


class _Bar(tqdm):
    """A bar at whose steps the program may be ended."""

    def update(self, n: float | None = 1) -> bool | None:
        signals.check_signals()
        return super().update(n)


def run(main: Callable[[list[str]], None]) -> None:
    """Runs a program: parses flags, calls `main(argv)`, exits with an honest status.

    Exit status: 0 done; 1 a `UserError`; 2 a wrong command line; 130 or 143 told to
    end, by Ctrl-C or SIGTERM. Each but the first prints one sentence on stderr. Any
    other exception is a bug of ours and keeps its traceback. Where several processes
    work together, one that fails ends all.
    """
    # Orbax tells of every thread it starts; `--verbosity=0` listens to it.
    logging.set_verbosity(logging.WARNING)
    try:
        with signals.raise_at_once():
            app.run(main, flags_parser=_parse)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        distributed.fail(error.exit_code, str(error))
        _wait_no_longer(error.exit_code)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as ended:
        print(
            "interrupted: what was finished is kept; the same command continues there.",
            file=sys.stderr,
        )
        status = ended.status if isinstance(ended, signals.Interrupted) else 130
        distributed.fail(status, "it was interrupted")
        _wait_no_longer(status)
        sys.exit(status)
    except SystemExit as ended:
        if ended.code:
            status = ended.code if isinstance(ended.code, int) else 1
            distributed.fail(status, f"it ended with status {status}")
            _wait_no_longer(status)
        distributed.finish()
        raise
    except Exception as error:
        distributed.end_with_others()
        traceback.print_exc()
        distributed.fail(1, f"{type(error).__name__}: {error}")
        _wait_no_longer(1)
        sys.exit(1)


def _wait_no_longer(status: int) -> None:
    """Ends the program after `PATIENCE`, if need be without its threads.

    Python waits for all of them, and one of a library may itself wait, for what has
    just failed: Orbax's do for ten minutes.
    """

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    timer = threading.Timer(PATIENCE, leave)
    timer.daemon = True
    timer.start()


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        config = flags.FLAGS.config if "config" in flags.FLAGS else None
        # A file that is missing is told only when it is looked at.
        if config is not None and config.get("run") == "":
            raise UsageError("--config.run is empty: name a folder, e.g. runs/mine")
        return rest
    except flags.Error as error:
        raise UsageError(f"{error} (try --help)") from error
    # config_flags runs the file and sets the overrides while flags are parsed.
    except OSError as error:
        named = next((flag for flag in argv if flag.startswith("--config")), "--config")
        reason = error.strerror or "there is no such file"
        raise UsageError(f"{named}: {reason}") from error
    except SyntaxError as error:
        raise UsageError(
            f"--config: {error.filename}:{error.lineno} is no Python: {error.msg}"
        ) from error
    except (KeyError, AttributeError) as error:
        raise UsageError(_unknown_key(error, argv)) from error
    except (TypeError, ValueError) as error:
        raise UsageError(f"--config: {error}") from error


def _unknown_key(error: Exception, argv: list[str]) -> str:
    """One sentence from the nested errors with which config_flags refuses a key."""
    while isinstance(error.args[0], Exception):
        error = error.args[0]
    key, _, advice = str(error.args[0]).partition("\n")
    key = key.strip("'\"")
    # The error names the last part of the key only; the flag has all of it.
    typed = (flag.split("=")[0] for flag in argv if flag.startswith("--config."))
    flag = next((flag for flag in typed if key in flag.split(".")), "--config")
    return f"{flag}: the config has no key {key!r}. {advice}".strip()
