import json
import os

import pytest

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import (
    json_lines,
    parse_json,
    read_any_json,
    read_json,
)


def test_a_byte_order_mark_is_skipped(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}


@pytest.mark.parametrize(
    "content, message",
    [
        (b"{", r"config.json: is not JSON: Expecting property name"),
        (b"\xff\xfe{", r"config.json: is not UTF-8 text"),
        (b"[1]", r"config.json: must contain a JSON object, not an array"),
        (b"null", r"config.json: must contain a JSON object, not null"),
        (b"[" * 200_000, r"config.json: is JSON that is nested too deeply"),
        (b'{"a":' * 200_000, r"config.json: is JSON that is nested too deeply"),
    ],
)
def test_what_is_no_object_is_refused(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_json(path)


def test_pipes_folders_and_missing_files_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"pipe: cannot be read \(is not a regular"):
        read_json(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read_json(tmp_path)
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        read_json(tmp_path / "absent")
    with pytest.raises(UserError, match=r"null: cannot be read \(is not a regular"):
        read_any_json(type(tmp_path)("/dev/null"))


def test_lines_are_counted_and_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n[2]\r\n{', encoding="utf-8")
    lines = json_lines(path)
    assert next(lines) == (1, {"a": 1})
    assert next(lines) == (3, [2])
    with pytest.raises(UserError, match=r"rows.jsonl, line 4: is not JSON"):
        next(lines)


def test_a_key_that_stands_twice_is_refused_where_it_matters():
    text = json.dumps({"a": 1})[:-1] + ', "a": 2}'
    assert parse_json(text, "x") == {"a": 2}
    with pytest.raises(UserError, match="x: an object has the key 'a' twice"):
        parse_json(text, "x", unique_keys=True)
    with pytest.raises(UserError, match="line 3: an object has the key"):
        parse_json('{"b": {"a": 1, "a": 1}}', "line 3", unique_keys=True)


def test_foreign_keys_are_printed_safely():
    with pytest.raises(UserError, match=r"\\x1b") as caught:
        parse_json('{"\\u001b]0;x": 1, "\\u001b]0;x": 1}', "x", unique_keys=True)
    assert "\x1b" not in str(caught.value)
