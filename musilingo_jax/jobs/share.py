"""Which shards are this process's, and who else is at work in the folder."""

import contextlib
import fcntl
from collections.abc import Iterator
from typing import NamedTuple

import jax
from etils import epath

from musilingo_jax.runtime import paths, storage
from musilingo_jax.runtime.errors import UserError


class Share(NamedTuple):
    """A part of the work: that of task `task`, from 0, of `tasks`."""

    task: int
    tasks: int

    @classmethod
    def of_this_process(cls) -> "Share":
        """This process's share among those of `jax.distributed`, if it is used."""
        return cls(jax.process_index(), jax.process_count())

    def has(self, shard: int) -> bool:
        """Whether a shard is made by this task."""
        return shard % self.tasks == self.task

    def label(self, what: str) -> str:
        """`what`, with the task if there are several."""
        return what + f" (task {self.task} of {self.tasks})" * (self.tasks > 1)


@contextlib.contextmanager
def claim(folder: epath.Path, share: Share, *, busy: str) -> Iterator[None]:
    """Keeps other processes from making the same shards, within the `with` block.

    Each task of a job has the folder together with the others, but once; a job of one
    task has it alone. This only saves work that would be done twice: some network file
    systems have no locks, and buckets have none.

    Args:
      folder: of the job, made if it does not exist.
      share: of this process.
      busy: what is being done in the folder, such as "filling this cache".

    Raises:
      UserError: another process has the folder.
      OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not paths.is_local(folder):
        yield
        return
    locks = [("lock", fcntl.LOCK_EX if share.tasks == 1 else fcntl.LOCK_SH)]
    if share.tasks > 1:
        locks.append((f"lock-{share.task}-of-{share.tasks}", fcntl.LOCK_EX))
    with contextlib.ExitStack() as stack:
        for name, kind in locks:
            # The system releases the lock of a process that ends, however it ends.
            lock = stack.enter_context(storage.open_lock(folder / name))
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError as error:
                task = f" as task {share.task} of {share.tasks}"
                raise UserError(
                    f"{folder}: another program is {busy}{task * (share.tasks > 1)}; "
                    "wait for it"
                ) from error
            except OSError:
                stack.close()  # A file system without locks.
        yield
