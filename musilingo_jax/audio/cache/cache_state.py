"""What a cache folder holds, and which of its files is to be trusted.

    plans/000.json           which clips share a shard             `shard_plan`
    00000000.array_record    features                            ┐
    00000000.json            the note: whose they are            ┘ `shards`
    index.jsonl              copies of all notes, when all shards are finished

Every file is written under another name and renamed when it is complete. Each fact has
one source. If that is lost, it is made again from another:

    fact                              source              if lost, made from
    which clips belong to a shard     the plans           the notes, as one new plan
    whether a shard is finished       its note exists,    the sound files
                                      and its records
                                      have the size
                                      that it gives
    which clip each record is,        the note            the sound files
    and why others have none
    all of this, in one file          the notes           the index is only a copy: a
                                                          line counts while its shard's
                                                          note exists, its clips are
                                                          those of the plan, and the
                                                          records have its size

A process may be killed at any time. What it leaves, and what the next job does:

    killed while it …                 leaves                      the next job …
    writes a plan                     plans/*.partial             plans the same again
    writes records                    *.array_record.*.partial    makes the shard again
    has renamed the records,          records without a note      makes the shard again,
      but not written the note                                    with the same bytes
    has written the note              a finished shard            continues with others
    replaces a finished shard:
      before the old note is removed  the old shard               replaces it
      after that                      records without a note      makes the shard again;
                                                                  clips whose files are
                                                                  gone become missing
    has finished all shards           no index, or an old one     writes the index

Partial files of processes that are dead are removed by the next job.
"""

import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from etils import epath

from musilingo_jax.audio.cache import identity as identities
from musilingo_jax.audio.cache import shards
from musilingo_jax.audio.cache.identity import Identity
from musilingo_jax.audio.cache.shards import SHARD_INDEX, Note
from musilingo_jax.jobs import seal, shard_plan
from musilingo_jax.jobs.identity import StoredIdentity, is_identity
from musilingo_jax.jobs.shard_plan import ShardPlans
from musilingo_jax.runtime import paths, storage
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import json_lines
from musilingo_jax.runtime.threads import MOST_THREADS

TORN_REMEDY = f"what was finished is kept: {shards.REMEDY}, which repairs it"

_NUMBER = re.compile(r"\d{8}", re.ASCII)
_NOTE = re.compile(r"\d{8}\.json", re.ASCII)

# What became of a clip. MISSING is not settled: each job looks for the file again.
PENDING, HELD, SKIPPED, ABSENT = "pending", "held", "skipped", "absent"
MISSING = "missing"


@dataclass(frozen=True)
class CacheState:
    """The contents of a cache folder.

    Attributes:
      plans: which shards there should be.
      notes: number of a finished shard → its note.
      damaged: file names of records that are missing or cut off though their shard was
        finished.
      indexed: whether the index has all this.
      torn: what is wrong with the plans on the disk; None if nothing is. `plans` then
        is what the notes know of them.
    """

    plans: ShardPlans
    notes: dict[int, Note]
    damaged: list[str]
    indexed: bool
    torn: str | None = None

    @property
    def unfinished(self) -> list[int]:
        """The numbers of planned shards that are not finished."""
        return [n for n in range(len(self.plans.shards)) if n not in self.notes]

    @property
    def progress(self) -> str:
        """How many shards are finished, for messages."""
        shards = len(self.plans.shards)
        return f"{len(self.notes)} of {shards} shards are finished"

    def fates(self) -> dict[str, str]:
        """What became of each planned clip; of several plans, the last one decides."""
        fates = {}
        for number, clips in enumerate(self.plans.shards):
            note = self.notes.get(number)
            fates |= dict.fromkeys(clips, HELD if note else PENDING)
            if note:
                fates |= dict.fromkeys(note["skipped"], SKIPPED)
                fates |= dict.fromkeys(note["absent"], ABSENT)
                fates |= dict.fromkeys(note["missing"], MISSING)
        return fates


def read(
    folder: epath.Path, identity: Identity | None, *, trust_index: bool = True
) -> CacheState:
    """The contents of a cache folder, which need not exist.

    Args:
      folder: of the cache.
      identity: what its features should depend on; None for anything.
      trust_index: use the index where it agrees with the other files, which saves
        reading every note.

    Raises:
      UserError: the folder has another identity, features of several ones, or cannot be
        read.
    """
    try:
        # Before the plans, so that the plan of each note that is seen exists.
        sizes = paths.file_sizes(folder)
        header, index = _read_index(folder) if SHARD_INDEX in sizes else ({}, {})
        plans, torn = _read_plans(folder)
        notes = _read_notes(folder, sizes, index if trust_index else {}, plans)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror or error}); choose another "
            "folder with --config.features.cache=…"
        ) from error
    if plans and notes and not plans.count:
        torn = f"{folder / shard_plan.FOLDER}: the plans of the features are missing"
    if plans is None or torn:
        plans = _plans_of_notes(header.get("identity"), notes)
    stored = plans.identity or header.get("identity")
    if stored and identity:
        identities.check_equal(folder, stored, identity.stored())
    finished, damaged = {}, []
    for number, clips in enumerate(plans.shards):
        note = notes.get(number)
        if note is None or not _describes(note, clips):
            continue
        identities.check_equal(folder, note["identity"], stored or {})
        if shards.is_whole(number, note, sizes):
            finished[number] = note
        else:
            damaged.append(shards.record_name(number))
    indexed = (
        not torn
        and header.get("plans") == plans.count
        and len(index) == len(plans.shards) == len(finished)
        and all(index.get(number) is note for number, note in finished.items())
    )
    return CacheState(plans, finished, damaged, indexed, torn)


def write_index(folder: epath.Path, state: CacheState) -> None:
    """Writes all notes into one file.

    Raises:
      OSError: it cannot be written.
    """
    header = {"identity": state.plans.identity, "plans": state.plans.count}
    lines = [dict(state.notes[number]) for number in sorted(state.notes)]
    for line in lines:
        del line["identity"]  # The header has it.
    lines = [header, *lines]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    storage.write_text(folder / SHARD_INDEX, text)


def _read_index(folder: epath.Path) -> tuple[dict[str, Any], dict[int, Note]]:
    """The header, and the notes by shard; nothing if the index cannot be read."""
    try:
        values = [value for _, value in json_lines(folder / SHARD_INDEX)]
    except UserError:
        return {}, {}
    if not values or not all(isinstance(value, dict) for value in values):
        return {}, {}
    header, *lines = values
    names = [str(line.get("shard")).partition(".")[0] for line in lines]
    if not is_identity(header.get("identity")) or not all(
        _NUMBER.fullmatch(name) for name in names
    ):
        return {}, {}
    common = {"identity": header["identity"]}
    return header, {
        int(name): line | common for name, line in zip(names, lines, strict=True)
    }


def _read_plans(folder: epath.Path) -> tuple[ShardPlans | None, str | None]:
    """The plans, or why they cannot be read."""
    try:
        return shard_plan.read(folder), None
    except shard_plan.Torn as error:
        return None, str(error)


def _read_notes(
    folder: epath.Path,
    sizes: Mapping[str, int | None],
    index: Mapping[int, Note],
    plans: ShardPlans | None,
) -> dict[int, Note]:
    """The note of each shard: from the index where that is valid, or else its file."""
    planned = dict(enumerate(plans.shards)) if plans and plans.count else None
    numbers = {int(name[:8]) for name in sizes if _NOTE.fullmatch(name)}
    notes = {
        number: line
        for number, line in index.items()
        if number in numbers
        and shards.clips_of(line) is not None
        and seal.is_intact(line)
        and (planned is None or _describes(line, planned.get(number, ())))
        and shards.is_whole(number, line, sizes)
    }
    others = sorted(numbers - notes.keys())
    with ThreadPoolExecutor(MOST_THREADS) as pool:
        read = pool.map(lambda number: shards.read_note(folder, number), others)
        found = zip(others, read, strict=True)
        return notes | {number: note for number, note in found if note is not None}


def _describes(note: Note, clips: tuple[str, ...]) -> bool:
    """Whether a note is that of a shard with these clips."""
    return set(shards.clips_of(note) or ()) == set(clips)


def _plans_of_notes(
    identity: StoredIdentity | None, notes: Mapping[int, Note]
) -> ShardPlans:
    """One plan with the shards that have notes; a shard without a note has no clips."""
    identity = next((note["identity"] for note in notes.values()), identity)
    clips = [
        tuple(shards.clips_of(notes[number]) or ()) if number in notes else ()
        for number in range(max(notes, default=-1) + 1)
    ]
    return ShardPlans(identity, 0, tuple(clips))
