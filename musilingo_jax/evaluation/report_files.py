"""Writes the files of a report."""

import errno
import json
from pathlib import Path

from musilingo_jax.evaluation import report, report_data
from musilingo_jax.evaluation.report import About
from musilingo_jax.evaluation.scoring import Scored
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.storage import write_text


def write(folder: Path, about: About, scored: Scored) -> None:
    """Writes report.html and report.md to read, report.json and examples.jsonl.

    Args:
      folder: the folder, which need not exist.
      about: what was evaluated.
      scored: its scores.

    Raises:
      UserError: a file cannot be written.
    """
    # Here and not above, because matplotlib takes a second to import.
    from musilingo_jax.evaluation import html_page

    content = report_data.everything(about, scored)
    texts = {
        "report.json": json.dumps(content, indent=2, ensure_ascii=False),
        "report.md": report.markdown(about, scored),
        "examples.jsonl": "".join(report_data.examples(scored)),
        "report.html": html_page.page(about, scored, folder),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_text(folder / name, text)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some space" if full else "make it writable"
        raise UserError(
            f"{folder}: the report cannot be written ({error.strerror}). The answers "
            f"are kept: {remedy}, and the same command scores them"
        ) from error
