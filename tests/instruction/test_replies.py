"""What a model writes, in every way that models write it."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from musilingo_jax.instruction import replies

ONE, TWO = ("How fast is it?", "It is slow."), ("Any drums?", "No, there are none.")
ROWS = [{"question": q, "answer": a} for q, a in (ONE, TWO)]
JSON = json.dumps(ROWS)


def texts(reply):
    return [(pair.question, pair.answer) for pair in reply.pairs]


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        ("json", JSON),
        ("json", "\ufeff" + JSON),
        ("json", json.dumps({"pairs": ROWS})),
        ("json", json.dumps([{"Question": q, "Answer ": a} for q, a in (ONE, TWO)])),
        ("fenced", f"Here you are:\n```json\n{JSON}\n```\nEnjoy!"),
        ("fenced", f"```\n{JSON}"),
        ("fenced", f"```python\n{ROWS!r}\n```"),
        (
            "fenced",
            f"```json\n{json.dumps(ROWS[:1])}\n```\nand\n```json\n"
            f"{json.dumps(ROWS[1:])}\n```",
        ),
        ("inside", f"Sure! {JSON} I hope that helps."),
        ("python", repr(ROWS)),
        ("python", f"Sure: {ROWS!r}."),
        ("cut", JSON[:-1] + ', {"question": "Which k'),
        ("cut", "\n".join(map(json.dumps, ROWS))),
        ("python", JSON[:-1] + ",]"),
        (
            "lines",
            "Q: How fast is it?\nA: It is slow.\n\nQ: Any drums?\nA: No, there are "
            "none.",
        ),
        (
            "lines",
            "**Question 1:** How fast is it?\n**Answer:** It is slow.\n"
            "**Question 2:** Any drums?\n**Answer:** No, there\nare none.",
        ),
        (
            "lines",
            "Question:\nHow fast is it?\n\nAnswer:\nIt is slow.\n\nQuestion:\n"
            "Any drums?\n\nAnswer:\nNo, there are none.\n",
        ),
        (
            "lines",
            "1. How fast is it?\nAnswer: It is slow.\n2) Any drums?\nAnswer: No, there "
            "are none.",
        ),
        (
            "lines",
            "- Q1: How fast is it?\n- A1: It is slow.\n- Q2: Any drums?\n"
            "- A2: No, there are none.",
        ),
    ],
)
def test_pairs_are_found_in_any_form(parse, text):
    reply = replies.read(text)
    assert (texts(reply), reply.parse, reply.broken) == ([ONE, TWO], parse, 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot help with that.",
        "[]",
        "[1, 2]",
        '[{"question": 1, "answer": "x"}]',
        '{"question": "Only this?"}',
        "Q: No answer?",
        "A: No question.",
        "[" * 5000,
        "{" * 5000 + "}" * 5000,
        "__import__('os').system('false')",
        "[{'question': open('x'), 'answer': 'y'}]",
    ],
)
def test_what_holds_no_pair_is_nothing(text):
    assert replies.read(text) == ([], replies.NOTHING, 0)


def test_broken_entries_are_counted():
    text = json.dumps([*ROWS, {"question": "Alone?"}, 7, {"answer": None}])
    reply = replies.read(text)
    assert (texts(reply), reply.broken) == ([ONE, TWO], 3)


def test_letters_are_whole_and_on_one_line():
    halves = "Half: \\ud83d, whole: \\ud83c\\udfb5"
    text = f'[{{"question": "How\\nis it?", "answer": "{halves}"}}]'
    ((question, answer),) = texts(replies.read(text))
    assert question == "How is it?" and answer == "Half: \ufffd, whole: \U0001f3b5"


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="QA:qa1.)?*[]{}'\"\\,`\njson \ud800", max_size=200))
@example("*" * 20_000)
@example("Q: " + " " * 20_000 + "\nA: x")
def test_any_text_can_be_read(text):
    reply = replies.read(text)
    assert reply.parse in replies.PARSES
    json.dumps([pair.entry for pair in reply.pairs], ensure_ascii=False).encode()


def test_an_answer_that_a_limit_cut_off_is_none():
    text = "Q: Is it slow?\nA: Yes, it is slow.\nQ: What leads?\nA: The most popular"
    assert [pair.answer for pair in replies.read(text).pairs][1:] == [
        "The most popular"
    ]
    reply = replies.read(text, cut=True)
    assert [pair.answer for pair in reply.pairs] == ["Yes, it is slow."]
    assert (reply.parse, reply.broken) == ("lines", 1)
    assert replies.read("Q: What leads?\nA: The", cut=True).parse == replies.NOTHING
    # Whole objects are whole, wherever the text ends.
    assert len(replies.read(JSON[:-1], cut=True).pairs) == len(ROWS)
