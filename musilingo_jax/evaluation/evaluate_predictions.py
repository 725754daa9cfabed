"""Scores answers from a file, whatever system gave them."""

from collections.abc import Mapping
from pathlib import Path

from musilingo_jax.answering.answer_file import answer_files
from musilingo_jax.evaluation import (
    controls,
    predictions,
    report,
    report_files,
    scoring,
)
from musilingo_jax.evaluation.evaluate_model import ANSWERS
from musilingo_jax.evaluation.metrics import facts
from musilingo_jax.evaluation.metrics.wording import WordingModels
from musilingo_jax.evaluation.report import About
from musilingo_jax.evaluation.scoring import Scored
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import check_writable_folder

# Of the controls and of the bootstrap: there is no config that could name one.
_SEED = 0


def evaluate_predictions(
    path: Path,
    out: Path | None,
    *,
    bertscore: str | None,
    layer: int | None,
    keys: Mapping[str, str] | None = None,
) -> tuple[str, Scored]:
    """Scores a file of answers, with the controls that need no model.

    Args:
      path: the file, in the format of `predictions`.
      out: folder of the report; None for no report.
      bertscore: the model of BERTScore; None for none.
      layer: its layer; None for the one that its authors chose.
      keys: our key → the file's, for those that should not be guessed.

    Returns:
      The report as text, and the scores.

    Raises:
      UserError: the file cannot be read, the model of BERTScore cannot be used, or the
        folder holds the answers of another system.
    """
    rows, notes = predictions.read_noted(path, keys)
    if out is not None:
        check_writable_folder(out, flag="--out")
        for answers in answer_files(out / ANSWERS):
            if not _are_same(answers, path):
                raise UserError(
                    f"{answers} holds the answers of another system, which a report on "
                    f"{path} would not match: choose another --out, or delete it"
                )
    models = WordingModels.require(bertscore, layer)
    scored = scoring.score(
        rows,
        controls.with_model_free(rows, rows, {}, _SEED),
        facts.vocabulary((row.attribute, row.value) for row in rows),
        models,
        seed=_SEED,
    )
    about = About(
        path.name,
        left_out=0,
        not_held_out=0,
        identity={},
        config={},
        notes=tuple(notes),
    )
    if out is not None:
        report_files.write(out, about, scored)
    return report.markdown(about, scored), scored


def _are_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # A link to nothing is no answers of this system, either.
        return False
