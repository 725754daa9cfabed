"""Orbax still reports one failure several times, and once with our changes."""

import asyncio
import importlib.util
import logging

import pytest
from orbax.checkpoint._src import asyncio_utils
from orbax.checkpoint._src.futures import future

from musilingo_jax.training import orbax_errors


async def fail_beside_others(ended):
    """Raises an error while another task runs, which says when it has ended."""

    async def fail():
        raise ValueError("the disk is full")

    async def work():
        for _ in range(100):
            await asyncio.sleep(0)
        ended.append(asyncio.get_running_loop())

    await asyncio.gather(fail(), work())


def unchanged():
    """Orbax's module as it is without our change."""
    spec = importlib.util.find_spec(asyncio_utils.__name__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_orbax_closes_a_loop_while_its_tasks_run():
    """If this fails, Orbax has mended it, and `run_all_tasks` can go."""
    ended = []
    with pytest.raises(ValueError, match="the disk is full"):
        unchanged().run_sync(fail_beside_others(ended))
    assert not ended


def test_with_our_loop_all_tasks_end():
    orbax_errors.report_once()
    ended = []
    with pytest.raises(ValueError, match="the disk is full"):
        asyncio_utils.run_sync(fail_beside_others(ended))
    assert len(ended) == 1
    assert ended[0].is_closed()


def test_our_loop_returns_results_and_does_not_wait_when_interrupted():
    async def result():
        return 3

    async def interrupted():
        asyncio.ensure_future(asyncio.Event().wait())
        await asyncio.sleep(0)
        raise KeyboardInterrupt

    assert orbax_errors.run_all_tasks(result()) == 3
    with pytest.raises(KeyboardInterrupt):
        orbax_errors.run_all_tasks(interrupted())


@pytest.mark.parametrize("filtered", [False, True])
def test_orbax_logs_what_it_raises_unless_filtered(caplog, filtered):
    """If this fails without the filter, Orbax has mended it, and the filter can go."""
    orbax_errors.report_once()
    logger = logging.getLogger("absl")
    if not filtered:
        logger.removeFilter(orbax_errors.is_kept)

    async def fail():
        raise ValueError("the disk is full")

    try:
        with pytest.raises(ValueError, match="the disk is full"):
            future.CommitFuture(fail()).result()
    finally:
        orbax_errors.report_once()
    # Not asyncio's, which tells of tasks that other tests have interrupted.
    logged = [record for record in caplog.records if record.name == "absl"]
    assert bool(logged) != filtered


def test_other_records_are_kept(caplog):
    orbax_errors.report_once()
    logger = logging.getLogger("absl")
    logger.warning("a warning")
    try:
        raise ValueError("of another library")
    except ValueError:
        logger.exception("an error")
    logged = [record.message for record in caplog.records if record.name == "absl"]
    assert logged == ["a warning", "an error"]
