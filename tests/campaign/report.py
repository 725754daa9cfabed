"""Counts by kind and outcome, and every fault with the command that repeats it."""

from collections import Counter
from typing import Any

from campaign.outcomes import GOOD

_SHOWN = 160


def report(rows: list[dict[str, Any]]) -> str:
    """A table of counts, then the faults."""
    counts: dict[str, Counter] = {}
    for row in rows:
        counts.setdefault(f"{row['part']}: {row['kind']}", Counter())[
            row["outcome"]
        ] += 1
    found = {row["outcome"] for row in rows}
    columns = [*(name for name in GOOD if name in found), *sorted(found - {*GOOD})]
    width = max(map(len, counts), default=4)
    lines = ["  ".join(["".ljust(width), "all".rjust(6), *columns])]
    total: Counter = Counter()
    for kind, counted in counts.items():
        total += counted
        lines.append(_line(kind.ljust(width), counted, columns))
    lines.append(_line("all".ljust(width), total, columns))
    bad = faults(rows)
    lines += [f"\n{len(bad)} faults in {len(rows)} attempts"]
    for row in sorted(bad, key=lambda row: (row["outcome"], row["id"])):
        lines.append(
            f"\n{row['outcome']}: --only='{row['id']}'  {row.get('target', '')}"
        )
        lines.append(f"  {row['how'][:_SHOWN]!r}")
        lines += [f"  | {line[:_SHOWN]}" for line in row["said"].splitlines()[-3:]]
    return "\n".join(lines)


def faults(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows whose outcome is a fault."""
    return [row for row in rows if row["outcome"] not in GOOD]


def _line(name: str, counted: Counter, columns: list[str]) -> str:
    numbers = (str(counted[c] or "·").rjust(len(c)) for c in columns)
    return "  ".join([name, str(counted.total()).rjust(6), *numbers])
