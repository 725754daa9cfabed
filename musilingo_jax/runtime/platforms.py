"""The platforms that JAX runs on: those that are here, or that `JAX_PLATFORMS` names.

JAX starts its platforms when a program first asks for a device. If one is named that is
not here, JAX raises errors of several kinds from wherever that is, or goes on without
it: `JAX_PLATFORMS=cuda,cpu` on a machine without a GPU computes on the CPU.
"""

import traceback

import jax

from musilingo_jax.runtime.compilation_cache import keep_compiled_programs
from musilingo_jax.runtime.errors import UserError, causes
from musilingo_jax.runtime.printable import printable

# What is needed for a platform, besides its hardware.
_NEEDED = {
    "cuda": "NVIDIA's driver and `pip install -e '.[cuda]'`",
    "tpu": "`pip install -e '.[tpu]'`, on a TPU VM",
}
# The beginning of JAX's message about a platform that cannot be started.
_NOT_STARTED = "Unable to initialize backend"


def start() -> None:
    """Starts the platforms, and keeps on disk what will be compiled for them.

    Must be called before the first work on a device, and after `distributed.start`.

    Raises:
      UserError: `JAX_PLATFORMS` names a platform that is not here, or none can be
        started.
    """
    keep_compiled_programs()
    named = jax.config.jax_platforms  # type: ignore[attr-defined]  # Made at run time.
    # Without a name, these are the devices that JAX chooses itself.
    for name in named.split(",") if named else [None]:
        try:
            jax.devices(name)
        except (RuntimeError, AssertionError) as error:
            raise _problem(named or "", name or "", error) from error


def failure(error: BaseException) -> UserError | None:
    """The message for an error of JAX about its platforms; None for any other error.

    For programs that need no device at first and therefore do not call `start`.
    """
    named = jax.config.jax_platforms or ""  # type: ignore[attr-defined]
    for cause in causes(error):
        if isinstance(cause, RuntimeError) and str(cause).startswith(_NOT_STARTED):
            return _problem(named, "", cause)
        # If no GPU is visible, JAX skips `cuda` and asserts that something is left.
        frames = traceback.extract_tb(cause.__traceback__)[-1:]
        asserted = isinstance(cause, AssertionError)
        if asserted and any(frame.name == "backends" for frame in frames):
            return _problem(named, "cuda", cause)
    return None


def _problem(named: str, name: str, error: BaseException) -> UserError:
    """Which platform is not here, and what to do.

    Args:
      named: the value of `JAX_PLATFORMS`; "" if it is not set.
      name: the platform; "" for the one that the error quotes.
      error: of JAX.
    """
    reason = printable(str(error)).partition("\n")[0].partition(" (set JAX_")[0]
    if reason.startswith(_NOT_STARTED):
        _, quoted, reason = reason.split("'", 2)
        reason = reason.removeprefix(": ")
        # JAX tries each kind of GPU for the name gpu.
        if not name or quoted in named.split(","):
            name = quoted
    elif reason.startswith("Unknown backend"):
        reason = ""
    if not named:
        return UserError(
            f"JAX cannot start on this machine ({reason}): repair that, or set "
            "JAX_PLATFORMS=cpu to compute on the CPU"
        )
    because = f" ({reason})" if reason and "known backends" not in reason else ""
    needed = f" It needs {_NEEDED[name]}." if name in _NEEDED else ""
    if name in ("gpu", "rocm"):
        needed = f" NVIDIA's GPUs are called cuda, which needs {_NEEDED['cuda']}."
    return UserError(
        f"JAX_PLATFORMS={printable(named)}: JAX has no platform {name!r} on this "
        f"machine{because}.{needed} Without JAX_PLATFORMS, JAX chooses what there is"
    )
