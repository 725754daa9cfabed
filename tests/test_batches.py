"""Batches are pure functions of the step, padded and cropped without loss."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_run import small_tokenizer

from musilingo_jax.batches import Batches, crop
from musilingo_jax.corpora.records import Record
from musilingo_jax.errors import UserError
from musilingo_jax.prompts import PromptConfig, encode
from musilingo_jax.sharding import make_mesh

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


def make(tokenizer, records=None, cache=CACHE, **changes):
    values = {"rows": 8, "max_tokens": 96, "max_windows": 3, "seed": 0}
    values |= {"mesh": make_mesh(1, 1, 1), "weights": {}} | changes
    if records is None:
        records = [record(index) for index in range(11)]
    return Batches(records, cache, tokenizer, PROMPT, **values)


def numpy(batch):
    return {name: np.asarray(getattr(batch, name)) for name in FIELDS}


def assert_equal(one, other):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)


def test_a_batch_is_a_function_of_seed_and_step(tokenizer):
    first, again = make(tokenizer), make(tokenizer)
    assert_equal(first.batch(5), again.batch(5))  # Without batches 0 to 4.
    first.batch(0)
    assert_equal(first.batch(5), again.batch(5))
    clips = [again.clips(step) for step in range(4)]
    assert clips != [make(tokenizer, seed=1).clips(step) for step in range(4)]


def test_each_epoch_has_every_example_once_in_another_order(tokenizer):
    batches = make(tokenizer, rows=11)
    epochs = [np.asarray(batches.batch(step).tokens).tolist() for step in range(3)]
    assert len({len(epoch[0]) for epoch in epochs}) == 1
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2]


def test_rows_hold_what_was_encoded(tokenizer):
    batches = make(tokenizer)
    for step in range(3):
        batch = numpy(batches.batch(step))
        total = 0
        for row in range(8):
            size = int(batch["segments"][row].sum())
            total += size
            slots = batch["audio_slot"][row]
            windows = int((slots >= 0).sum())
            clip = int(batch["features"][row, 0, 0]) // 10
            assert str(clip) == batches.clips(step)[row]
            assert windows == min(WINDOWS[clip], 3)
            text = tokenizer.decode(batch["tokens"][row, :size])
            index = int(text.split("What is ")[1].split("?")[0])
            told = record(index)
            example = encode(tokenizer, PROMPT, told.question, told.answer, windows)
            assert batch["tokens"][row, :size].tolist() == example.tokens
            assert slots[:size].tolist() == example.audio_slot
            targets = batch["targets"][row]
            assert (
                targets[targets >= 0].tolist()
                == np.flatnonzero(example.target_mask).tolist()
            )
            assert batch["positions"][row, :size].tolist() == list(range(size))
            assert (batch["segments"][row, size:] == 0).all()
            assert (slots[size:] == -1).all()
            assert (batch["features"][row, windows:] == 0).all()
        assert total == batches.tokens(step)


def test_long_songs_are_cropped_anew_each_time(tokenizer):
    batches = make(tokenizer, records=[record(3)], rows=16)
    starts = np.asarray(batches.batch(0).features)[:, 0, 0]
    assert set(starts) <= set(range(30, 37))
    assert len(set(starts)) > 3


def test_crop_keeps_the_middle_and_short_songs():
    features = np.arange(7)[:, None]
    assert crop(features, 3, None)[:, 0].tolist() == [2, 3, 4]
    assert crop(features, 7, None).shape == crop(features, 9, None).shape == (7, 1)
    starts = {int(crop(features, 3, np.random.default_rng(i))[0, 0]) for i in range(99)}
    assert starts == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 2, 2), (1, 4, 1), (1, 1, 8)])
def test_any_mesh_gets_the_same_batches(tokenizer, mesh):
    spread = make(tokenizer, mesh=make_mesh(*mesh)).batch(2)
    assert_equal(spread, make(tokenizer).batch(2))
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
    assert len(read) == 8 + 1  # And once to know how wide the features are.


def test_there_are_few_lengths(tokenizer):
    batches = make(tokenizer, rows=1)
    lengths = {batches.batch(step).tokens.shape[1] for step in range(33)}
    assert len(lengths) <= 4
    assert len({batches.batch(step).targets.shape for step in range(33)}) == 1


def test_what_does_not_fit_is_counted_and_what_is_cut_too(tokenizer):
    records = [record(0), record(1, "many words " * 20), record(2, "few words")]
    batches = make(tokenizer, records)
    assert (batches.examples, batches.too_long, batches.cut) == (3, 0, 1)
    longest = max(batches.batch(0).segments.sum(axis=1).tolist())
    batches = make(tokenizer, records, max_tokens=longest - 1)
    assert (batches.examples, batches.too_long, batches.cut) == (2, 1, 0)
    assert batches.batch(0).tokens.shape[1] <= longest - 1


def test_corpora_that_a_stage_does_not_learn_from_are_told(tokenizer, capsys):
    long = "many words " * 20
    records = [
        dataclasses.replace(record(0), corpus="kept"),
        dataclasses.replace(record(1, long), corpus="long"),
    ]
    weights = {"kept": 0.5, "long": 0.3, "other": 0.2}
    short = encode(tokenizer, PROMPT, records[0].question, records[0].answer, 1)
    most = len(short.tokens)
    batches = make(tokenizer, records, weights=weights, max_tokens=most)
    assert batches.of_corpus == {"kept": 1, "long": 0, "other": 0}
    assert batches.clips(3) == ["0"] * 8
    said = [line for line in capsys.readouterr().err.splitlines() if "learn" in line]
    assert said == [
        "this stage does not learn from long (none of its examples fits in max_tokens "
        f"= {most}), other (none of its examples is of this kind and can be heard)"
    ]
    make(tokenizer, records, weights={"kept": 0.5, "long": 0.3}, max_tokens=96)
    assert "learn from" not in capsys.readouterr().err


def test_nothing_that_fits_is_an_error(tokenizer):
    with pytest.raises(UserError, match="none of the 11 examples fits in max_tokens"):
        make(tokenizer, max_tokens=9)
