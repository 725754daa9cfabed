"""The outcomes of a campaign on disk, so that what is done is not done again.

<out>/inputs.jsonl      a line per attempt: part, kind, number, how, outcome, …
<out>/failures/…        for each fault: the file, the commands and the output
"""

import json
import threading
from pathlib import Path
from typing import Any

from campaign.outcomes import GOOD


class Record:
    """The rows of one part.

    Several threads may add rows.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self.rows: dict[str, dict[str, Any]] = {}
        for line in path.read_text("utf-8").split("\n") if path.exists() else ():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # The last line of a campaign that was killed.
            self.rows[row["id"]] = row

    def add(self, row: dict[str, Any]) -> None:
        """Writes a row; it replaces one of the same id."""
        with self._lock:
            self.rows[row["id"]] = row
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                # A line that was cut off stays alone.
                file.write(
                    ("" if self._ends_whole() else "\n") + json.dumps(row) + "\n"
                )

    def forget_faults(self) -> None:
        """Attempts that ended in a fault are tried again."""
        self.rows = {k: row for k, row in self.rows.items() if row["outcome"] in GOOD}

    def _ends_whole(self) -> bool:
        with self.path.open("rb") as file:
            if not file.seek(0, 2):
                return True
            file.seek(-1, 2)
            return file.read() == b"\n"


def read_all(out: Path) -> list[dict[str, Any]]:
    """The rows of all parts."""
    paths = sorted(out.glob("*.jsonl"))
    return [row for path in paths for row in Record(path).rows.values()]
