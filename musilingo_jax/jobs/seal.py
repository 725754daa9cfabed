"""A digest within a JSON object of a job, so that any change of it is noticed.

    {"shard": "00000007.array_record", …, "digest": "9b1f0c2e5d7a4c38"}

It is of the values, not of the text: other line ends or another order of keys change
nothing. What older versions wrote has none, and is taken as it is.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_KEY = "digest"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The object with the digest of its other entries."""
    entries = {key: value for key, value in content.items() if key != _KEY}
    return {**entries, _KEY: _digest(entries)}


def is_intact(content: Mapping[str, Any]) -> bool:
    """Whether an object that was read is the one that was written, as far as known."""
    return _KEY not in content or content == sealed(content)


def _digest(entries: Mapping[str, Any]) -> str:
    text = json.dumps(entries, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
