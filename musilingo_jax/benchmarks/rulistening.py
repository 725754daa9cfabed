"""RUListening (Zang et al. 2025, ISMIR): MuChoMusic with distractors that need ears.

`RUL-MuchoMusic.json` comes from yongyizang/AreYouReallyListening or the hub
(yongyizang/RUListening), under the MIT licence: MuChoMusic's questions with four
distractors that language models without ears do not see through. Each is left out in
turn, so that a question is asked four times.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from musilingo_jax.benchmarks import multiple_choice
from musilingo_jax.benchmarks.item import (
    PUBLISHED,
    Answers,
    Benchmark,
    Item,
    Reading,
    Row,
    RowScores,
    Score,
    Told,
)
from musilingo_jax.corpora import annotations
from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.evaluation.metrics.choices import LETTERS
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import is_texts, read_json

FILE = "RUL-MuchoMusic.json"
_BRACKETS = re.compile(r"\[\[([A-E])\]\]")
_STATED = re.compile(
    r"(?:answer is|chose|choose|select|guess is|I guess) ([A-E])\b", re.IGNORECASE
)
_VOTE = "accuracy of the vote, published rule"


def published_choice(answer: str, options: Sequence[str]) -> int | None:
    """The option that an answer chooses by the published rule.

    The first of these that finds anything: the last “[[A]]”; the last letter after
    “answer is”, “choose”, “select” and the like, in upper or lower case, so that “the
    answer is a flute” chooses A; the first letter of which there is “option A”,
    “Option A” or “(A)” anywhere; the first option whose text there is anywhere.

    Args:
      answer: the answer.
      options: the texts, in the order of the letters.

    Returns:
      The place of the option; None for none, or for the letter of one too many.
    """
    letters = LETTERS[:5]
    found = _BRACKETS.findall(answer) or _STATED.findall(answer)
    place = letters.index(found[-1].upper()) if found else None
    if place is None:
        forms = ("option {0}", "Option {0}", "({0})")
        place = next(
            (
                at
                for at, letter in enumerate(letters)
                if any(form.format(letter) in answer for form in forms)
            ),
            None,
        )
    if place is None:
        lower = answer.lower()
        return next(
            (at for at, text in enumerate(options) if text and text.lower() in lower),
            None,
        )
    return place if place < len(options) else None


def _read(source: Path, reading: Reading) -> list[Item]:
    """The questions, each once for each distractor, `reading.shuffles` times.

    Raises:
      UserError: the file is missing or damaged.
    """
    path = annotations.need(source, FILE)
    items = []
    for id, row in read_json(path).items():
        where = f"{path}: {id}"
        if not isinstance(row, dict):
            raise UserError(f"{where}: is not a JSON object")
        question = annotations.text(row, "question", where=where)
        right = annotations.text(row, "correct_answer", where=where)
        distractors = row.get("distractors")
        if not is_texts(distractors) or len(distractors) < 2:
            raise UserError(
                f"{where}: 'distractors' must be a list of texts, 2 or more"
            )
        for left_out in range(len(distractors)):
            others = distractors[:left_out] + distractors[left_out + 1 :]
            multiple_choice.check([right, *others], right, where=where)
            for shuffle in range(reading.shuffles):
                order = multiple_choice.order(
                    1 + len(others), f"{id}/{left_out}/{shuffle}", reading.seed
                )
                options = tuple([right, *others][place] for place in order)
                about = {
                    "question_id": id,
                    "shuffle": shuffle,
                    "pass_number": left_out,
                    "excluded_distractor": distractors[left_out],
                }
                items.append(_item(id, question, options, order.index(0), about))
    return items


def _item(
    id: str,
    question: str,
    options: tuple[str, ...],
    right: int,
    about: Mapping[str, Any],
) -> Item:
    """A question in one of its passes."""
    shown = multiple_choice.lettered(options).rstrip()
    marks = ", ".join(f"[[{letter}]]" for letter in LETTERS[: len(options)])
    return Item(
        id=f"{id}/{about['pass_number']}/{about['shuffle']}",
        sound=Wanted(names=(id,)),
        question=(
            "Provide your best guess of this question. Think step by step.\n\n"
            f"Question: {question}\n\nOptions: {shown}\n\n"
            f"Write out your guess in the format of [[Letter]], such as {marks}."
        ),
        reference=options[right],
        value=options[right],
        options=options,
        bare=question,
        candidates=options,
        right=right,
        about=about,
    )


def _published(items: Sequence[Item], answers: Answers) -> RowScores:
    """Of each pass, and of the vote of the passes, at the first of them."""
    passes, vote = np.full(len(items), np.nan), np.full(len(items), np.nan)
    rounds: dict[tuple[str, int], list[int]] = {}
    chosen: list[str | None] = []
    for place, (item, answer) in enumerate(zip(items, answers, strict=True)):
        option = None if answer is None else published_choice(answer, item.options)
        chosen.append(None if option is None else item.options[option])
        if answer is not None:
            passes[place] = chosen[-1] == item.reference
            key = item.about["question_id"], item.about["shuffle"]
            rounds.setdefault(key, []).append(place)
    for places in rounds.values():
        agreed = _agreed([chosen[place] for place in places])
        vote[places[0]] = agreed == items[places[0]].reference
    return {"published": passes, "published_vote": vote}


def _agreed(texts: Sequence[str | None]) -> str:
    """The text that most passes chose, of several the first; "" if none chose."""
    most = Counter(text for text in texts if text).most_common(1)
    return most[0][0] if most else ""


def _files(told: Sequence[Told]) -> dict[str, str]:
    """`rulistening.json`, in the form of the published results, for the first order."""
    questions: dict[str, dict[str, Any]] = {}
    for item, _, answer in told:
        about = item.about
        if about["shuffle"]:
            continue
        option = published_choice(answer, item.options)
        text = "" if option is None else item.options[option]
        question = questions.setdefault(
            about["question_id"], {"question_id": about["question_id"], "passes": []}
        )
        question["correct_answer"] = item.reference
        question["passes"].append(
            {
                "pass_number": about["pass_number"],
                "excluded_distractor": about["excluded_distractor"],
                "model_output": answer,
                "extracted_answer_letter": "" if option is None else LETTERS[option],
                "extracted_answer_text": text,
                "is_correct": text == item.reference,
                "letter_mapping": dict(zip(LETTERS, item.options, strict=False)),
            }
        )
    for question in questions.values():
        texts = [each["extracted_answer_text"] for each in question["passes"]]
        question["most_agreed_answer"] = _agreed(texts)
        question["vote_counts"] = Counter(text for text in texts if text)
        agreed = question["most_agreed_answer"]
        question["is_correct"] = agreed == question["correct_answer"]
    rows = list(questions.values())
    text = json.dumps(rows, ensure_ascii=False, indent=2) + "\n"
    return {"rulistening.json": text}


BENCHMARK = Benchmark(
    name="rulistening",
    title="RUListening (Zang et al. 2025)",
    data=f"{FILE} or its folder",
    read=_read,
    published=_published,
    files=_files,
    scores=(
        Score(
            "published_vote",
            _VOTE,
            PUBLISHED,
            "the option that most of a question's four passes choose is right; of "
            "several, the one that was chosen first",
        ),
        Score(
            "published",
            multiple_choice.ACCURACY,
            PUBLISHED,
            "a pass chooses the right option: by the last [[A]], else the last letter "
            "after “answer is” and the like, else the first “(A)”, else the first "
            "option whose text it contains",
        ),
        multiple_choice.READ,
        multiple_choice.CHOSEN,
        multiple_choice.LIKELIEST,
    ),
    rows=(Row("random choice", multiple_choice.ACCURACY, 25.0, "four options"),),
)
