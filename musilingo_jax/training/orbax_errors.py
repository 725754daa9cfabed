"""Makes Orbax report a failed read or write once: as the exception that it raises.

Orbax 0.12.8 reports one failure in three ways:

1. It raises the exception to whoever waits for the checkpoint. This one is enough.
2. Each thread that the exception passes through logs it, with a traceback
   (`futures/future.py`, `checkpointers/async_checkpointer.py`); others log what they
   found of the unfinished checkpoint (`metadata/checkpoint.py`).
3. It reads and writes arrays as tasks of an event loop. When one fails, it closes the
   loop while the others still run (`asyncio_utils.py`). TensorStore calls the closed
   loop when they end, and Python prints a traceback for each of them, which no code can
   catch: "RuntimeError: Event loop is closed".

The log records of (2) are dropped unless `--verbosity=0` asks for them. The loop of (3)
is closed after its tasks have ended. Both changes affect Orbax alone. A test shows that
they are still needed.
"""

import asyncio
import logging
import os
import re
from collections.abc import Coroutine
from typing import Any, TypeVar

import orbax.checkpoint
from absl import logging as absl_logging

try:
    from orbax.checkpoint._src import asyncio_utils
except ImportError:  # A later version of Orbax, which may not need this.
    asyncio_utils = None

T = TypeVar("T")

_RUN = "_run_sync_via_new_loop"
_LONGEST = 300
# How the requests and objects in their messages begin.
_DUMP = r" \[tensorstore_spec|<bound method|TensorStore\(|See full TensorStore"
_ORBAX = os.path.dirname(orbax.checkpoint.__file__)


def report_once() -> None:
    """Changes Orbax as described above, for the rest of the process."""
    logging.getLogger("absl").addFilter(is_kept)
    if hasattr(asyncio_utils, _RUN):
        setattr(asyncio_utils, _RUN, run_all_tasks)


def reason(error: Exception) -> str:
    """Why something cannot be read, in one short line.

    TensorStore appends its whole request, and Orbax prints its objects into messages.
    """
    lines = str(error).splitlines() or [""]
    text = re.split(_DUMP, lines[0])[0]
    text = text.strip(" :.") or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def run_all_tasks(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in a new event loop, which is closed when no task is left.

    If the coroutine raises an error, the tasks that it started are waited for. Ctrl-C
    does not wait for them.
    """
    loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(coroutine)
    except Exception:
        # With `return_exceptions`, errors of other tasks are neither raised nor logged.
        others = asyncio.gather(*asyncio.all_tasks(loop), return_exceptions=True)
        loop.run_until_complete(others)
        raise
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def is_kept(record: logging.LogRecord) -> bool:
    """Whether a record is something else than an error that Orbax raises too."""
    raised = record.pathname.startswith(_ORBAX) and record.levelno >= logging.ERROR
    return not raised or absl_logging.get_verbosity() > absl_logging.WARNING
