"""Whether likely answers are right more often: confidence against correctness.

The confidence of an answer is the share of answers drawn at temperature 1 that name the
value which the likeliest answer names (self-consistency, Wang et al. 2022). Of a model
that knows what it knows, answers with a confidence of 0.8 are right in 80 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from musilingo_jax.answering.answer import Request, answer
from musilingo_jax.answering.answerer import Answerer
from musilingo_jax.answering.config import GenerateConfig
from musilingo_jax.answering.prompts import PromptConfig
from musilingo_jax.corpora.fact_questions import stated_value

BINS = (0.0, 0.5, 0.7, 0.9, 1.0)


@dataclass(frozen=True)
class Judged:
    """Answers to questions about facts.

    Attributes:
      answers: the likeliest.
      named: whether it names a value; "I can't tell" does not.
      right: whether that is the true one.
      confidence: from 0 to 1; 0 where no value is named.
    """

    answers: list[str]
    named: Bool[np.ndarray, " rows"]
    right: Bool[np.ndarray, " rows"]
    confidence: Float[np.ndarray, " rows"]


def judge(
    answerer: Answerer,
    prompt: PromptConfig,
    requests: Sequence[Request],
    truth: Sequence[tuple[str, str]],
    config: GenerateConfig,
    *,
    draws: int,
) -> Judged:
    """Answers questions, and draws further answers to each.

    Args:
      answerer: the model.
      prompt: the conversation around each question.
      requests: songs and questions.
      truth: the fact that each is about, and its value.
      config: how the likeliest answer is decoded.
      draws: further answers to each.
    """

    def values(answers: Sequence[str]) -> list[str | None]:
        pairs = zip(answers, truth, strict=True)
        return [stated_value(text, fact) for text, (fact, _) in pairs]

    answers = answer(answerer, prompt, requests, config)
    said = values(answers)
    agreed = np.zeros(len(requests))
    for number in range(draws):
        drawing = replace(
            config, temperature=1.0, top_p=1.0, seed=config.seed + 1 + number
        )
        drawn = values(answer(answerer, prompt, requests, drawing))
        agreed += [
            one is not None and one == other
            for one, other in zip(said, drawn, strict=True)
        ]
    return Judged(
        answers=answers,
        named=np.array([value is not None for value in said]),
        right=np.array(
            [value == true for value, (_, true) in zip(said, truth, strict=True)]
        ),
        confidence=agreed / draws,
    )


def table(judged: Judged) -> list[dict[str, float]]:
    """For each of the bins: its answers, their mean confidence, the share right."""
    found = []
    for low, high in zip(BINS[:-1], BINS[1:], strict=True):
        top = high if high < 1 else np.inf
        inside = judged.named & (judged.confidence >= low) & (judged.confidence < top)
        count = int(inside.sum())
        found.append(
            {
                "from": low,
                "to": high,
                "answers": count,
                "confidence": float(judged.confidence[inside].mean()) if count else 0.0,
                "right": float(judged.right[inside].mean()) if count else 0.0,
            }
        )
    return found


def plot(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Draws the table: the nearer to the diagonal, the better."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4, 4))
    axes.plot([0, 1], [0, 1], color="0.8", label="as sure as right")
    shown = [row for row in rows if row["answers"]]
    confident = [row["confidence"] for row in shown]
    right = [row["right"] for row in shown]
    axes.plot(confident, right, marker="o", label="answers")
    for row in shown:
        place = row["confidence"], row["right"]
        axes.annotate(f"n = {row['answers']:.0f}", place)
    axes.set(xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
