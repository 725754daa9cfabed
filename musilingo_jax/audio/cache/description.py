"""What a cache holds, described for people."""

from collections.abc import Collection

from etils import epath

from musilingo_jax.audio.cache import cache_state, shards
from musilingo_jax.audio.cache.cache_state import TORN_REMEDY, CacheState
from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import printable


def summary(
    cache: FeatureCache, clips: Collection[str], *, reasons: bool = True
) -> str:
    """What the cache holds of some clips, in UTF-8.

        runs/tiny/cache: 95 clips, 0.26 h, 218,880 bytes of features (786,432 bytes on
        disk for all 95 clips)
        1 silent:
          songs/a.ogg:160291:0d5b57a1a2b3c4d5
        1 with notices:
          songs/c.ogg: lacks 4.7 ms at its end: …
        1 skipped:
          songs/b.ogg: the file is empty (0 bytes)

    Args:
      cache: after a job.
      clips: whose features are counted, and which are listed.
      reasons: whether to list the clips that were skipped, not only count them.
    """
    held = [clip for clip in clips if clip in cache.ids]
    hours = sum(cache.seconds(clip) for clip in held) / 3600
    size = sum(map(cache.bytes, held))
    lines = [
        f"{cache.folder}: {len(held)} clips, {hours:.2f} h, {size:,} bytes of features "
        f"({cache.disk_bytes:,} bytes on disk for all {len(cache.ids)} clips)"
    ]
    if silent := sorted(cache.silent & set(clips)):
        lines += [f"{len(silent)} silent:", *(f"  {clip}" for clip in silent)]
    if noticed := sorted(cache.notices.keys() & set(clips)):
        lines += [f"{len(noticed)} with notices:"]
        lines += [
            f"  {cache.path(clip)}: {notice}"
            for clip in noticed
            for notice in cache.notices[clip]
        ]
    skipped = sorted(cache.skipped.keys() & set(clips))
    if skipped and reasons:
        lines += [f"{len(skipped)} skipped:"]
        lines += [f"  {cache.skipped[clip]}" for clip in skipped]
    elif skipped:
        lines += [f"{len(skipped)} skipped"]
    return printable("\n".join(lines))


def notice_line(cache: FeatureCache, clips: Collection[str]) -> str | None:
    """One line about the songs whose listener should know something, in UTF-8.

    Args:
      cache: the cache.
      clips: those that matter.

    Returns:
      The line; None if there is nothing to be known.
    """
    silent = [clip for clip in clips if clip in cache.silent and clip in cache.ids]
    noticed = [clip for clip in clips if clip in cache.notices and clip in cache.ids]
    if not silent and not noticed:
        return None
    first = (
        f"{cache.path(noticed[0])}: {cache.notices[noticed[0]][0]}"
        if noticed
        else f"{cache.path(silent[0])}: is silent"
    )
    return printable(
        f"note: of {len(clips)} songs {len(silent)} are silent and {len(noticed)} have "
        f"notices, such as {first}; `python -m musilingo_jax.cache inspect "
        f"{cache.folder}` lists them"
    )


def inspection(folder: epath.Path) -> tuple[str, str | None]:
    """A table of what a cache holds, and why it cannot be used yet.

    The table is in UTF-8; the reason is None for a complete cache.

    Raises:
      UserError: the cache is empty, or cannot be read.
    """
    state = cache_state.read(folder, None)
    if not state.plans.shards:
        if state.torn:
            raise UserError(f"{state.torn}; {TORN_REMEDY}")
        raise UserError(f"{folder}: holds no features yet; {shards.REMEDY}")
    cache = FeatureCache(folder, state)
    clips, size = len(cache.ids), sum(note["features"] for note in state.notes.values())
    pending = list(state.fates().values()).count(cache_state.PENDING)
    rows = {
        **(state.plans.identity or {}),
        "shards": state.progress,
        "clips": f"{clips:,}",
        "hours": f"{sum(map(cache.seconds, cache.ids)) / 3600:,.2f}",
        "vectors": f"{sum(map(cache.windows, cache.ids)):,}",
        "feature bytes": f"{size:,}" + (f", {size // clips:,} a clip" if clips else ""),
        "bytes on disk": f"{cache.disk_bytes:,}",
        "silent": f"{len(cache.silent):,}",
        "with notices": f"{len(cache.notices):,}",
        "skipped": f"{len(cache.skipped):,}",
        "of them missing": f"{len(cache.missing):,}",
        "not encoded yet": f"{pending:,}",
    }
    lines = [str(folder), *(f"  {key:16} {value}" for key, value in rows.items())]
    if state.unfinished:
        lines.append(f"unfinished shards: {', '.join(map(str, state.unfinished))}")
    silent = sorted(cache.silent & set(cache.ids))
    lines += [f"silent: {cache.path(clip)}" for clip in silent]
    for clip, told in sorted(cache.notices.items()):
        lines += [f"notice: {cache.path(clip)}: {notice}" for notice in told]
    lines += [f"skipped: {reason}" for _, reason in sorted(cache.skipped.items())]
    return printable("\n".join(lines)), _problem(folder, state)


def _problem(folder: epath.Path, state: CacheState) -> str | None:
    """Why a cache cannot be used yet, and what to do."""
    if state.torn:
        return f"{state.torn}; {TORN_REMEDY}"
    if state.damaged:
        return f"{folder / state.damaged[0]}: is missing or cut off; {shards.REMEDY}"
    if state.unfinished:
        return f"{folder}: {state.progress}; {shards.REMEDY}"
    return None
