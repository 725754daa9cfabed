"""The header by which a server says when to come back (RFC 9110, 10.2.3)."""

import datetime
import email.utils


def seconds_of(header: str | None) -> float | None:
    """How long to wait; None if the header is missing, or says nothing of use.

        "7"                                  → 7.0
        "Mon, 30 Nov 2026 08:00:07 GMT"      → until then, 0 if that is over

    Args:
      header: its value.
    """
    if header is None:
        return None
    header = header.strip()
    if header.isascii() and header.isdecimal():
        return float(header[:9])
    try:
        when = email.utils.parsedate_to_datetime(header)
    except (ValueError, TypeError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    now = datetime.datetime.now(datetime.UTC)
    return max(0.0, (when - now).total_seconds())
