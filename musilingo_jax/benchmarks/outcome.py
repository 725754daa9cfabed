"""The rows of the job → what each system said, question by question."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from musilingo_jax.benchmarks.item import Item
from musilingo_jax.benchmarks.scores import Said
from musilingo_jax.evaluation.score_table import OWN

Rows = Sequence[Mapping[str, Any]]
"""Of `asking.rows`: a row for each song."""


def said(items: Sequence[Item], rows: Rows, named: Sequence[str]) -> dict[str, Said]:
    """System → its answers, and the options that it finds likeliest.

    Args:
      items: the questions.
      rows: of the job.
      named: the controls.
    """
    by_system: dict[str, dict[str, Mapping[str, Any]]] = {
        name: {} for name in (OWN, *named)
    }
    for row in rows:
        for each in row["answers"]:
            by_system[each["heard"]][each["item"]] = each
    return {
        name: Said(
            [found.get(item.id, {}).get("answer") for item in items],
            [_likeliest(found.get(item.id, {})) for item in items],
        )
        for name, found in by_system.items()
    }


def answers(items: Sequence[Item], rows: Rows) -> Iterator[dict[str, Any]]:
    """The lines of answers.jsonl: every answer with its question."""
    questions = {item.id: item for item in items}
    for row in rows:
        for each in row["answers"]:
            item = questions[each["item"]]
            line = {"audio": row["audio"], **each, "question": item.question}
            if item.options:
                line["options"] = list(item.options)
            yield line | {"reference": item.reference}


def notices(rows: Rows) -> list[str]:
    """What is odd about the songs, a line each."""
    return [f"{row['audio']} {text}" for row in rows for text in row.get("notices", [])]


def cut(rows: Rows) -> int:
    """How many of the model's own answers were cut after `max_new_tokens`."""
    return sum(each.get("cut", False) for each in _own(rows))


def unscored(rows: Rows) -> dict[str, int]:
    """Why options have no likelihood, each reason with its number."""
    return dict(Counter(each["unscored"] for each in _own(rows) if "unscored" in each))


def _own(rows: Rows) -> list[Mapping[str, Any]]:
    return [each for row in rows for each in row["answers"] if each["heard"] == OWN]


def _likeliest(answer: Mapping[str, Any]) -> int | None:
    """The first option with the fewest nats per token; None if none was scored."""
    costs = answer.get("nats_per_token")
    return None if costs is None else min(range(len(costs)), key=costs.__getitem__)
