"""From answers and controls to estimates, intervals and tests."""

import numpy as np
import pytest

from musilingo_jax.evaluation import report, report_data, scoring
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.metrics import facts, intervals
from musilingo_jax.evaluation.metrics.wording import WordingModels
from musilingo_jax.evaluation.report import About

ABSENT = dict.fromkeys(
    ("legacy.meteor", "honest.meteor", "legacy.bertscore", "honest.bertscore"),
    "it is not here",
)


def score(own, control, *, per_clip=1, attribute="mood"):
    """Scores answers that are right (1) or wrong (0), one or several per clip."""
    answers = {1: "calm", 0: "wild"}
    rows = [
        AnsweredQuestion(
            f"{i // per_clip}",
            "?",
            "calm",
            answers[x],
            attribute,
            "calm",
            (),
            None,
            False,
        )
        for i, x in enumerate(own)
    ]
    given = [None if x is None else answers[x] for x in control]
    return scoring.score(
        rows,
        {"shuffled": given},
        facts.vocabulary([(attribute, "calm"), (attribute, "wild")]),
        WordingModels(None, None, ABSENT, {}),
        seed=0,
    )


def line(scored, section="factual", name="mood"):
    (found,) = [x for x in scored.lines if (x.section, x.name) == (section, name)]
    return found


def test_a_control_without_answers_has_no_score_of_any_kind():
    scored = score([1] * 6, [None] * 6)
    for found in scored.lines:
        assert found.controls == found.gains == {"shuffled": None}, found.name
        assert not found.beats_controls
    assert line(scored, "honest", "bleu1").own.value == 1
    honest = report_data.summary(scored)["controls"]["shuffled"]["honest"]
    for name in ("bleu1", "bleu4", "rouge_l", "distinct1", "distinct2", "length"):
        assert honest[name] is None
        assert "other clips" in honest[f"{name}_reason"]
    text = report.markdown(About("x", 0, 0, {}, {}), scored)
    (row,) = [cells for cells in text.split("\n") if cells.startswith("| bleu1")]
    assert row == "| bleu1 ✗ | 6 (6) | **100.0** | – |  |  |"


def test_wilson_counts_a_clip_of_many_questions_as_few_answers():
    together = [1] * 60 + [0] * 60  # Six clips of 20 questions, half of them right.
    alone = [1, 0] * 60
    wide = line(score(together, [0] * 120, per_clip=20)).own
    assert (wide.low, wide.high) == pytest.approx(intervals.wilson_interval(0.5, 6))
    narrow = line(score(alone, [0] * 120)).own
    assert (narrow.low, narrow.high) == pytest.approx(
        intervals.wilson_interval(0.5, 120)
    )
    every = line(score([1] * 120, [0] * 120, per_clip=20)).own
    assert (every.low, every.high) == intervals.wilson_interval(1.0, 6)


@pytest.mark.parametrize(
    ("wins", "losses", "ties", "above"),
    [(3, 0, 3, False), (5, 0, 9, False), (6, 0, 0, True), (6, 0, 6, True)],
)
def test_a_few_wins_are_not_hearing_though_no_resample_has_losses(
    wins, losses, ties, above
):
    own = [1] * wins + [0] * losses + [1] * ties
    control = [0] * wins + [1] * losses + [1] * ties
    scored = score(own, control)
    gain = line(scored).gains["shuffled"]
    assert gain.value == pytest.approx((wins - losses) / len(own))
    assert gain.p_above == 0.5 ** (wins + losses)
    assert line(scored).beats_controls == above
    # BLEU of a word each says the same, by exchanging counts.
    counted = line(scored, "honest", "bleu1").gains["shuffled"]
    assert counted.p_above == gain.p_above
    assert counted.is_above == above


def test_what_is_worse_is_tested_too():
    (gain,) = line(score([0] * 8, [1] * 8)).gains.values()
    assert gain.p_below == 1 / 256 and gain.is_below and not gain.is_above
    (gain,) = line(score([0] * 3 + [1] * 5, [1] * 8)).gains.values()
    assert gain.p_below == 1 / 8 and not gain.is_below


def test_intervals_that_would_show_no_doubt_are_none():
    scored = score([1] * 8, [0] * 8)
    gain = line(scored).gains["shuffled"]
    assert (gain.value, gain.low, gain.high) == (1, None, None)
    assert gain.reason == "all resamples give the same" and gain.is_above
    assert "above every control, by 100.0 points or more" in report.interpretation(
        line(scored)
    )
    few = line(score([1, 0, 1, 0, 1], [0, 1, 0, 0, 0]), "kind").own
    assert few.low is None and few.reason == "fewer than 6 clips"
    assert report._range(few) == "–"
    mixed = line(score([1, 0] * 5, [0] * 10), "kind").own
    assert mixed.low < mixed.value < mixed.high and mixed.reason is None


def test_differences_count_the_clips_that_both_have():
    scored = score([1] * 12, [0] * 5 + [None] * 7)
    gain = line(scored).gains["shuffled"]
    assert gain.reason == "fewer than 6 clips" and not gain.is_above
    assert gain.p_above == pytest.approx(1 / 32)


def test_estimates_by_hand():
    own = np.random.default_rng(0).integers(0, 2, 40)
    control = np.random.default_rng(1).integers(0, 2, 40)
    found = line(score(own.tolist(), control.tolist(), per_clip=2))
    assert found.clips == 20 and found.rows == 40
    assert found.own.value == own.mean()
    assert found.gains["shuffled"].value == pytest.approx(own.mean() - control.mean())
    assert found.gains["shuffled"].p_above + found.gains["shuffled"].p_below > 1
