"""Batches are pure functions of the step, packed and cropped without loss."""

import dataclasses
import itertools
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.small_run import small_tokenizer

from musilingo_jax.answering.prompts import PromptConfig, encode
from musilingo_jax.audio.features import crop
from musilingo_jax.corpora.records import Record
from musilingo_jax.models.attention import attend_mask
from musilingo_jax.models.bridges.linear import LinearBridge
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import make_mesh
from musilingo_jax.training.batches import Batches, ValidationBatches
from musilingo_jax.training.examples import Examples
from musilingo_jax.training.packing import PROGRAMS

pytestmark = pytest.mark.medium

PROMPT = PromptConfig(
    template="###Human: {} ###Assistant: ",
    instruction="<Audio><AudioHere></Audio> {}",
    end_sign="###",
    max_answer_tokens=24,
)
WINDOWS = (1, 2, 3, 9)
FIELDS = ("features", "tokens", "audio_slot", "segments", "positions", "targets")


def record(index, answer=None):
    return Record(
        audio=Path(f"{index % len(WINDOWS)}.wav"),
        clip=str(index % len(WINDOWS)),
        question=f"What is {index}?",
        answer=answer or f"It is {index}." * (1 + index % 3),
        split="train",
        attribute=None,
        value=None,
    )


def song(clip):
    """Window w of clip c is full of 10 · c + w, so that it can be recognised."""
    windows = 10 * int(clip) + np.arange(WINDOWS[int(clip)], dtype=np.float32)
    return np.repeat(windows[:, None], 4, axis=1)


CACHE = SimpleNamespace(features=song, windows=lambda clip: WINDOWS[int(clip)])


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


def measured(tokenizer, records=None, cache=CACHE, max_tokens=96, prompt=PROMPT):
    if records is None:
        records = [record(index) for index in range(11)]
    return Examples(
        records,
        cache,
        tokenizer,
        prompt,
        max_tokens=max_tokens,
        max_windows=3,
        bridge=LinearBridge,
    )


def make(tokenizer, records=None, cache=CACHE, **changes):
    return make_of(measured(tokenizer, records, cache), **changes)


def make_of(examples, **changes):
    values = {"batch_size": 12, "rows": 4, "seed": 0, "mesh": make_mesh(1, 1, 1)}
    return Batches(examples, **(values | {"weights": {}} | changes))


def make_validation(tokenizer, records=None, **changes):
    values = {"most": 99, "batch_size": 4, "rows": 2, "seed": 0}
    values |= {"mesh": make_mesh(1, 1, 1)} | changes
    return ValidationBatches(measured(tokenizer, records), **values)


def assert_equal(one, other):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)


def taken_apart(tokenizer, batch):
    """Each example of a batch as (row, number of its record, first window).

    Each is compared with what was encoded, and the places of no example with nothing.
    """
    batch = {name: np.asarray(getattr(batch, name)) for name in FIELDS}
    found = []
    for row, segments in enumerate(batch["segments"]):
        ends = [0, *np.cumsum(np.bincount(segments)[1:])]
        assert (
            np.repeat(range(1, len(ends)), np.diff(ends)) == segments[: ends[-1]]
        ).all()
        targets = batch["targets"][row]
        targets = targets[targets >= 0].tolist()
        windows_before = 0
        for start, end in itertools.pairwise(ends):
            slots = batch["audio_slot"][row, start:end]
            windows = int((slots >= 0).sum())
            text = tokenizer.decode(batch["tokens"][row, start:end].tolist())
            index = int(text.split("What is ")[1].split("?")[0])
            expected = record(index)
            example = encode(
                tokenizer, PROMPT, expected.question, expected.answer, windows
            )
            assert batch["tokens"][row, start:end].tolist() == example.tokens
            assert (
                np.where(slots < 0, -1, slots - windows_before).tolist()
                == example.audio_slot
            )
            assert batch["positions"][row, start:end].tolist() == [*range(end - start)]
            targets_here = start + np.flatnonzero(example.target_mask)
            assert [targets.pop(0) for _ in targets_here] == targets_here.tolist()
            features = batch["features"][
                row, windows_before : windows_before + windows, 0
            ]
            assert (np.diff(features) == 1).all()
            assert features[0] // 10 == features[-1] // 10 == int(expected.clip)
            assert windows == min(WINDOWS[int(expected.clip)], 3)
            found.append((row, index, int(features[0])))
            windows_before += windows
        assert targets == []
        assert (batch["segments"][row, ends[-1] :] == 0).all()
        assert (batch["audio_slot"][row, ends[-1] :] == -1).all()
        assert (batch["features"][row, windows_before:] == 0).all()
    return found


def test_a_batch_is_a_function_of_seed_and_step(tokenizer):
    first, again = make(tokenizer), make(tokenizer)
    assert_equal(first.batch(5), again.batch(5))  # Without batches 0 to 4.
    first.batch(0)
    assert_equal(first.batch(5), again.batch(5))
    clips = [again.clips(step) for step in range(4)]
    assert clips != [make(tokenizer, seed=1).clips(step) for step in range(4)]


@pytest.mark.parametrize("rows", [11, 4, 1])
def test_each_epoch_has_every_example_once_in_another_order(tokenizer, rows):
    batches = make(tokenizer, batch_size=11, rows=rows)
    epochs = [taken_apart(tokenizer, batches.batch(step)) for step in range(3)]
    for epoch in epochs:
        assert sorted(index for _, index, _ in epoch) == [*range(11)]
    if rows == 1:
        return
    places = [[(row, index) for row, index, _ in epoch] for epoch in epochs]
    assert places[0] != places[1] != places[2]


@pytest.mark.parametrize(("batch_size", "rows"), [(12, 12), (12, 4), (12, 5), (3, 1)])
def test_rows_hold_what_was_encoded_and_counted(tokenizer, batch_size, rows):
    batches = make(tokenizer, batch_size=batch_size, rows=rows)
    for step in range(3):
        batch = batches.batch(step)
        found = taken_apart(tokenizer, batch)
        clips = [str(index % len(WINDOWS)) for _, index, _ in found]
        assert sorted(clips) == sorted(batches.clips(step))
        in_row = Counter(row for row, *_ in found)
        assert max(in_row.values()) <= -(-batch_size // rows)
        assert len(in_row) == rows
        segments, shape = np.asarray(batch.segments), batches.shape(step)
        assert segments.shape == (rows, shape.length)
        assert batches.tokens(step) == (segments > 0).sum()
        assert batches.padding(step) == pytest.approx((segments == 0).mean())
        assert batches.targets(step) == (np.asarray(batch.targets) >= 0).sum()
        assert batches.attended(step) == np.asarray(attend_mask(batch.segments)).sum()


def test_packing_changes_no_example_of_a_batch(tokenizer):
    """Nor how its song is cropped."""
    packed, apart = (make(tokenizer, batch_size=8, rows=rows) for rows in (2, 8))
    for step in range(4):
        one, other = (taken_apart(tokenizer, b.batch(step)) for b in (packed, apart))
        assert sorted(example[1:] for example in one) == sorted(e[1:] for e in other)
    assert packed.padding(0) < apart.padding(0)


def test_long_songs_are_cropped_anew_each_time(tokenizer):
    batches = make(tokenizer, records=[record(3)], batch_size=16)
    starts = {first for *_, first in taken_apart(tokenizer, batches.batch(0))}
    assert starts <= set(range(30, 37))
    assert len(starts) > 3


def test_crop_keeps_the_middle_and_short_songs():
    features = np.arange(7, dtype=np.float32)[:, None]
    assert crop(features, 3, None)[:, 0].tolist() == [2, 3, 4]
    assert crop(features, 7, None).shape == crop(features, 9, None).shape == (7, 1)
    starts = {int(crop(features, 3, np.random.default_rng(i))[0, 0]) for i in range(99)}
    assert starts == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 2, 2), (1, 4, 1), (1, 1, 8)])
def test_any_mesh_gets_the_same_batches(tokenizer, mesh):
    sizes = {"batch_size": 20, "rows": 8}
    spread = make(tokenizer, mesh=make_mesh(*mesh), **sizes).batch(2)
    assert_equal(spread, make(tokenizer, **sizes).batch(2))
    rows = {shard.data.shape[0] for shard in spread.tokens.addressable_shards}
    assert rows == {8 // (mesh[0] * mesh[1])}


def test_a_row_is_read_once_however_many_devices_hold_it(tokenizer):
    read = []

    def features(clip):
        read.append(clip)
        return song(clip)

    counting = SimpleNamespace(features=features, windows=CACHE.windows)
    batches = make(tokenizer, cache=counting, mesh=make_mesh(4, 1, 2))
    batches.batch(0)
    assert len(read) == 12 + 1  # And once to know how wide the features are.


def test_there_are_few_shapes_and_one_for_whatever_comes(tokenizer):
    batches = make(tokenizer, batch_size=2, rows=1)
    assert len(batches.shapes) <= PROGRAMS
    for step in range(40):
        batch, shape = batches.batch(step), batches.shape(step)
        assert shape in batches.shapes
        assert batch.tokens.shape == (1, shape.length)
        assert batch.features.shape[1] == shape.windows
        assert batch.targets.shape[1] == shape.answers
    longest = max(batches.tokens(step) for step in range(40))
    assert batches.shapes[-1].length >= longest


def test_what_does_not_fit_is_counted_and_what_is_cut_too(tokenizer):
    records = [record(0), record(1, "many words " * 20), record(2, "few words")]
    examples = measured(tokenizer, records)
    assert (len(examples.records), examples.too_long.total(), examples.cut) == (3, 0, 1)
    longest = max(
        make(tokenizer, records, batch_size=1, rows=1).tokens(s) for s in range(3)
    )
    examples = measured(tokenizer, records, max_tokens=longest - 1)
    assert (len(examples.records), examples.too_long.total(), examples.cut) == (2, 1, 0)


def test_corpora_that_a_stage_does_not_train_on_are_named(tokenizer, capsys):
    long = "many words " * 20
    records = [
        dataclasses.replace(record(0), corpus="kept"),
        dataclasses.replace(record(1, long), corpus="long"),
    ]
    weights = {"kept": 0.5, "long": 0.3, "other": 0.2}
    short = encode(tokenizer, PROMPT, records[0].question, records[0].answer, 1)
    most = len(short.tokens)
    batches = make_of(measured(tokenizer, records, max_tokens=most), weights=weights)
    assert batches.of_corpus == {"kept": 1, "long": 0, "other": 0}
    assert batches.clips(3) == ["0"] * 12
    lines = [line for line in capsys.readouterr().err.splitlines() if "train" in line]
    assert lines == [
        "this stage does not train on long (none of its examples fits in max_tokens = "
        f"{most}), other (none of its examples is of the stage's kind and has audio)"
    ]
    make(tokenizer, records, weights={"kept": 0.5, "long": 0.3})
    assert "train on" not in capsys.readouterr().err


def test_nothing_that_fits_is_an_error(tokenizer):
    with pytest.raises(UserError, match="none of the 11 examples fits in max_tokens"):
        measured(tokenizer, max_tokens=9)


@pytest.mark.parametrize(("count", "examples", "looked_at"), [(11, 99, 11), (11, 6, 6)])
def test_validation_takes_examples_once_and_in_the_same_way(
    tokenizer, count, examples, looked_at
):
    records = [record(index) for index in range(count)]
    batches = make_validation(tokenizer, records, most=examples)
    assert (batches.examples, len(batches)) == (looked_at, -(-looked_at // 4))
    found = [taken_apart(tokenizer, batch) for batch in batches]
    chosen = [index for batch in found for _, index, _ in batch]
    assert len(set(chosen)) == len(chosen) == looked_at
    # The middle three of the nine windows of clip 3.
    assert {first for b in found for _, i, first in b if i % 4 == 3} <= {33}
    again = make_validation(tokenizer, records, most=examples)
    for index in reversed(range(len(batches))):
        assert_equal(again[index], batches[index])
        assert again[index].tokens.shape == batches[0].tokens.shape
    with pytest.raises(IndexError):
        batches[len(batches)]
    if looked_at < count:
        other = make_validation(tokenizer, records, most=examples, seed=1)
        others = [i for batch in other for _, i, _ in taken_apart(tokenizer, batch)]
        assert set(others) != set(chosen)


def test_validation_is_the_same_on_any_mesh(tokenizer):
    """Also where the examples of the last batch are fewer than its rows."""
    sizes = {"batch_size": 8, "rows": 8}
    spread = make_validation(tokenizer, mesh=make_mesh(4, 2, 1), **sizes)
    alone = make_validation(tokenizer, **sizes)
    for one, other in zip(spread, alone, strict=True):
        assert_equal(one, other)
    assert (np.asarray(alone[1].targets)[3:] == -1).all()


def test_one_of_two_instructions_is_drawn_by_each_example(tokenizer):
    prompt = dataclasses.replace(
        PROMPT, instruction="<AudioHere> {}", other_instruction="Well: {} <AudioHere>"
    )
    examples = measured(tokenizer, prompt=prompt)
    index = 3

    def begins_with_audio(rng):
        _, example = examples.draw(index, rng)
        assert len(example.tokens) <= examples.lengths[index]
        heard = [place for place, slot in enumerate(example.audio_slot) if slot >= 0]
        asked = len(example.tokens) - sum(example.target_mask)
        return heard[0] < asked // 2

    draws = [begins_with_audio(np.random.default_rng(seed)) for seed in range(40)]
    assert 10 < sum(draws) < 30
    # Without draws, as in validation and answers, the first one is used.
    assert begins_with_audio(None)
    first = measured(
        tokenizer, prompt=dataclasses.replace(prompt, other_instruction="")
    )
    assert (examples.lengths >= first.lengths).all()
    assert (examples.lengths > first.lengths).any()
