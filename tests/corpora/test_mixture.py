"""Several corpora at once: whose records they are, and how often each is drawn."""

from collections import Counter

import grain
import pytest
from ml_collections import ConfigDict

from musilingo_jax.corpora import mixture
from musilingo_jax.runtime.errors import UserError


def config(**corpora):
    members = {n: {"path": str(p), "weight": w} for n, (p, w) in corpora.items()}
    return ConfigDict({"path": "", "mixture": members})


def test_a_mixture_tells_its_records_apart(tmp_path):
    for name, count in (("one", 2), ("two", 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_bytes(b"sound")
        (tmp_path / name / "songs.jsonl").write_text(
            "".join(f'{{"audio": "a.wav", "answer": "{n}"}}\n' for n in range(count))
        )
    mixed = config(one=(tmp_path / "one", 2), two=(tmp_path / "two", 1.5))
    records = mixture.load(mixed)
    assert [r.corpus for r in records] == ["one"] * 2 + ["two"] * 3
    assert mixture.weights(mixed) == {"one": 2.0, "two": 1.5}
    assert mixture.title(mixed) == f"{tmp_path / 'one'} + {tmp_path / 'two'}"
    alone = ConfigDict({"path": str(tmp_path / "one")})
    assert [r.corpus for r in mixture.load(alone)] == ["", ""]
    assert (mixture.weights(alone), mixture.title(alone)) == ({}, alone.path)


def test_a_corpus_that_would_never_be_drawn_is_refused(tmp_path, capsys):
    for name, parts in (("one", ("train", "test")), ("two", ("Train", "test"))):
        (tmp_path / name).mkdir()
        for part in parts:
            (tmp_path / name / f"{part}.wav").write_text(part)
        (tmp_path / name / "songs.jsonl").write_text(
            "".join(
                f'{{"audio": "{part}.wav", "answer": "A.", "split": "{part}"}}\n'
                for part in parts
            )
        )
    mixed = config(one=(tmp_path / "one", 2), two=(tmp_path / "two", 1))
    mixed.train_split = "train"
    reason = r"mixture\.two: .*two has no records in the split 'train', so it wo"
    with pytest.raises(UserError, match=reason):
        mixture.split(mixed, "train", answered=True)
    assert len(mixture.split(mixed, "test", answered=True)) == 2
    assert capsys.readouterr().err == ""
    # Nothing is drawn from a split that only is asked about.
    mixed.train_split = "test"
    (record,) = mixture.split(mixed, "train", answered=True)
    assert record.corpus == "one"
    assert "mixture.two: " in capsys.readouterr().err


def test_a_song_in_other_splits_of_two_corpora_is_told(tmp_path, capsys):
    for name, part, audio in (("one", "train", "a.wav"), ("two", "test", "b.ogg")):
        (tmp_path / name).mkdir()
        (tmp_path / name / audio).write_bytes(b"the same song")
        (tmp_path / name / "songs.jsonl").write_text(
            f'{{"audio": "{audio}", "answer": "A.", "split": "{part}"}}\n'
        )
    mixed = config(one=(tmp_path / "one", 2), two=(tmp_path / "two", 1))
    mixture.load(mixed)
    told = capsys.readouterr().err
    assert (
        "config.corpus.mixture: songs in several splits: 1, such as one (train)" in told
    )


@pytest.mark.parametrize(
    "wrong, reason",
    [
        ({"path": "", "mixture": {}}, "either a path or a mixture"),
        ({"path": ""}, "either a path or a mixture"),
        ({"path": "a", "mixture": {"b": {"path": "b", "weight": 1}}}, "either a path"),
        ({"path": "", "mixture": {"b": {"path": "b"}}}, "mixture.b lacks weight"),
        (
            {"path": "", "mixture": {"b": "b"}},
            "b must be a section with the keys path and",
        ),
        (
            {"path": "", "mixture": {"b": {"path": "b", "weight": 1, "share": 2}}},
            "mixture.b has share, which nothing reads",
        ),
        (
            {"path": "", "mixture": {"b": {"path": "b", "weight": 0}}},
            "mixture.b.weight is 0: it must be above 0",
        ),
        (
            {"path": "", "mixture": {"b": {"path": "b", "weight": float("nan")}}},
            "mixture.b.weight is nan: it must be a finite number",
        ),
    ],
)
def test_a_wrong_mixture_is_refused(wrong, reason):
    with pytest.raises(UserError, match=reason):
        mixture.weights(ConfigDict(wrong))


def test_corpora_are_drawn_by_weight_and_each_in_epochs():
    names = ["small"] * 5 + ["large"] * 40
    weights = {"large": 0.75, "small": 0.25, "unused": 3.0}
    order = mixture.order(names, weights, seed=3)
    drawn = [order[place] for place in range(400)]
    assert Counter(names[i] for i in drawn) == {"large": 300, "small": 100}
    # By weight in any stretch, not only in the long run.
    for start in range(0, 400, 20):
        stretch = Counter(names[i] for i in drawn[start : start + 20])
        assert abs(stretch["small"] - 5) <= 1
    for name, size in (("small", 5), ("large", 40)):
        own = [i for i in drawn if names[i] == name]
        epochs = [own[start : start + size] for start in range(0, len(own), size)]
        whole = [epoch for epoch in epochs if len(epoch) == size]
        assert all(len(set(epoch)) == size for epoch in whole)
        assert len(set(map(tuple, whole))) > 1

    # Any element, at any time, in any order; another seed, another order.
    again = mixture.order(names, weights, seed=3)
    assert [again[place] for place in (399, 7, 10**9)] == [
        drawn[399],
        drawn[7],
        order[10**9],
    ]
    other = mixture.order(names, weights, seed=4)
    assert [other[place] for place in range(400)] != drawn
    # The order within a corpus does not depend on the others.
    alone = mixture.order(["small"] * 5, weights, seed=3)
    small = [i for i in drawn if names[i] == "small"]
    assert [alone[place] for place in range(100)] == small


def test_the_draws_of_a_mixture_have_their_own_random_numbers():
    order = mixture.order(["a"] * 3 + ["b"] * 3, {"a": 1, "b": 1}, seed=5)
    drawn = order.random_map(lambda place, rng: (place, int(rng.integers(1 << 30))))
    numbers = [drawn[place] for place in range(50)]
    assert [place for place, _ in numbers] == [order[place] for place in range(50)]
    assert len({number for _, number in numbers}) == 50
    assert drawn[17] == numbers[17]


def test_one_corpus_is_drawn_in_shuffled_epochs_whatever_its_name():
    plain = grain.MapDataset.range(7).seed(5).shuffle().repeat()
    order = mixture.order(["any"] * 7, {}, seed=5)
    assert [order[place] for place in range(50)] == [plain[i] for i in range(50)]
    assert sorted(order[place] for place in range(7)) == list(range(7))
