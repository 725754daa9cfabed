"""An endpoint that fails, stalls, closes, lies: asked again, told, never paid twice."""

import datetime
import email.utils
import json
import re

import pytest
from helpers.chat_endpoint import CLOSE, HANG_UP, STALL, completion, pairs, serving

from musilingo_jax.instruction import costs, endpoint, instructions, retry_after
from musilingo_jax.instruction.costs import Prices
from musilingo_jax.instruction.endpoint import Endpoint
from musilingo_jax.instruction.ledger import FOLDER, Ledger, key_of
from musilingo_jax.instruction.making import Said
from musilingo_jax.instruction.pairs import Item
from musilingo_jax.instruction.subjects import Subject
from musilingo_jax.runtime.errors import UserError

GOOD = pairs("How fast is it?", "It is slow.")
ITEMS = [
    Item(
        Subject(f"{n}", f"{n}", None, "train", captions=(f"Caption {n}.",)), "reasoning"
    )
    for n in range(6)
]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(endpoint, "_FIRST_PAUSE", 0.01)


def asked(server, folder, **changes):
    given = {
        "url": server.url,
        "model": "stand-in",
        "key_env": "",
        "in_flight": 2,
        "timeout": 10.0,
        "attempts": 3,
        "temperature": 0.5,
        "max_tokens": 99,
        "pairs": 4,
        "seed": 7,
        "folder": folder,
    }
    return Endpoint(**given | changes)


def ask(server, folder, items=ITEMS, **changes):
    return list(endpoint.load(asked(server, folder, **changes))(items))


def number_of(body):
    return int(re.search(r"Caption (\d)", body["messages"][0]["content"])[1])


def test_replies_come_in_the_order_of_the_items_and_say_what_was_asked(tmp_path):
    with serving(lambda body, before: f"reply {number_of(body)}") as server:
        said = ask(server, tmp_path)
        assert said == [Said(f"reply {n}", False, 100, 10) for n in range(6)]
        assert 1 <= server.most_at_once <= 2 and len(server.seen) == 6
        body = next(body for body in server.seen if number_of(body) == 0)
        assert body == {
            "model": "stand-in",
            "messages": [
                {"role": "user", "content": instructions.text(ITEMS[0], 4)},
            ],
            "temperature": 0.5,
            "max_tokens": 99,
            "seed": instructions.seed(ITEMS[0], 7),
        }
        assert len({body["seed"] for body in server.seen}) == 6
        assert all("Authorization" not in headers for headers in server.headers)


@pytest.mark.parametrize(
    "bad",
    [
        500,
        503,
        408,
        (429, "0"),
        (429, "soon"),
        CLOSE,
        HANG_UP,
        b"no JSON",
        b"[]",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": 7}}]}',
        b"\xff",
    ],
    ids=repr,
)
def test_what_may_succeed_later_is_tried_again(tmp_path, bad):
    with serving(lambda body, before: GOOD if before else bad) as server:
        said = ask(server, tmp_path, ITEMS[:3])
        assert [one.text for one in said] == [GOOD] * 3
        assert len(server.seen) == 6


def test_a_server_that_stalls_is_left_after_the_timeout(tmp_path):
    with serving(lambda body, before: GOOD if before else STALL) as server:
        (said,) = ask(server, tmp_path, ITEMS[:1], timeout=0.3)
        assert said.text == GOOD and len(server.seen) == 2


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            500,
            r"no reply after 3 attempts, the last: HTTP 500: \{\"error\": \"no \\x1b",
        ),
        (CLOSE, "the connection failed .IncompleteRead"),
        (b"lies", "the reply is no completion: lies"),
        (b'{"choices": [{"message": {"content": 7}}]}', "its content is not text"),
    ],
)
def test_an_item_that_fails_in_every_attempt_is_told(tmp_path, bad, message):
    with serving(lambda body, before: GOOD if number_of(body) else bad) as server:
        said = ask(server, tmp_path, ITEMS[:2])
        assert isinstance(said[0], UserError) and said[1].text == GOOD
        with pytest.raises(UserError, match=message):
            raise said[0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (400, "0: HTTP 400"),
        (422, "0: HTTP 422"),
        (completion(None, "content_filter"), "no text .finish_reason 'content_filter'"),
    ],
)
def test_what_cannot_succeed_is_not_tried_again(tmp_path, bad, message):
    with serving(lambda body, before: bad) as server:
        (said,) = ask(server, tmp_path, ITEMS[:1])
        assert isinstance(said, UserError) and re.search(message, str(said))
        assert len(server.seen) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_name_ends_the_job(tmp_path, status):
    with serving(lambda body, before: status) as server:
        message = f"completions: HTTP {status}.*check --url, --model-name and --key-env"
        with pytest.raises(UserError, match=message):
            ask(server, tmp_path, ITEMS * 5)
        assert len(server.seen) <= 4  # Those that were on their way.


def test_a_redirection_does_not_get_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    with serving(lambda body, before: GOOD) as other:
        target = f"{other.url}/chat/completions"
        with (
            serving(lambda body, before: ("to", target)) as server,
            pytest.raises(UserError, match="HTTP 307"),
        ):
            ask(server, tmp_path, ITEMS[:1], key_env="MY_KEY")
        assert server.headers[0]["Authorization"] == "Bearer secret"
        assert not other.seen


@pytest.mark.parametrize("key", [None, "", " ", "two\nlines", "Schlüssel"])
def test_a_key_that_is_not_there_is_told(tmp_path, monkeypatch, key):
    monkeypatch.delenv("MY_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("MY_KEY", key)
    with serving(lambda body, before: GOOD) as server:
        with pytest.raises(UserError, match="--key-env=MY_KEY: the environment holds"):
            ask(server, tmp_path, key_env="MY_KEY")
        assert not server.seen


def test_when_everything_fails_the_job_ends_and_keeps_what_is_answered(tmp_path):
    many = [
        Item(Subject(f"x{n}", "x", None, "train", captions=(f"Caption {n % 10}.",)), f)
        for n in range(30)
        for f in ("reasoning", "captioning")
    ]
    with serving(lambda body, before: 503) as server:
        with pytest.raises(UserError, match="10 requests one after the other failed"):
            ask(server, tmp_path, [*many], attempts=1)
        assert len(server.seen) < 20


def test_a_server_that_says_when_to_come_back_is_obeyed(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(
        endpoint.threading.Event,
        "wait",
        lambda self, seconds=None: waits.append(seconds),
    )
    failing = [(429, "7"), (503, "9999999"), (429, ""), 500]
    with serving(lambda body, before: [*failing, GOOD][before]) as server:
        # The thread of the server waits for events, too, so it is started before.
        ask(server, tmp_path, ITEMS[:1], attempts=5, in_flight=1)
    pauses = [wait for wait in waits if wait is not None]
    assert 7.0 in pauses and 600.0 in pauses
    monkeypatch.undo()
    for attempt in range(9):
        longest = min(60.0, 1.0 * 2**attempt)
        assert longest / 2 <= endpoint._pause(attempt, None) <= longest


def test_when_to_come_back_as_a_date():
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90)
    date = email.utils.format_datetime(soon, usegmt=True)
    assert retry_after.seconds_of(date) == pytest.approx(90, abs=3)
    assert retry_after.seconds_of("Mon, 30 Nov 2020 08:00:07 GMT") == 0
    assert retry_after.seconds_of(" 12 ") == 12
    for useless in (None, "", "soon", "-3", "1e9", "²", "9" * 400 + "x"):
        assert retry_after.seconds_of(useless) is None


def test_nothing_is_asked_twice_whoever_was_killed(tmp_path):
    with serving(lambda body, before: f"reply {number_of(body)}") as server:
        replies = endpoint.load(asked(server, tmp_path))(ITEMS)
        assert next(replies).text == "reply 0"
        replies.close()  # As an interrupt does.
        begun = len(server.seen)
        assert 1 <= begun < 6
        said = ask(server, tmp_path)
        assert [one.text for one in said] == [f"reply {n}" for n in range(6)]
        assert len(server.seen) == 6
        assert ask(server, tmp_path) == said and len(server.seen) == 6
        # Another question is another request.
        ask(server, tmp_path, ITEMS[:1], pairs=5)
        assert len(server.seen) == 7


def test_a_reply_that_was_not_written_whole_is_asked_again(tmp_path, capsys):
    with serving(lambda body, before: "reply") as server:
        ask(server, tmp_path, in_flight=1)
        (path,) = (tmp_path / FOLDER).iterdir()
        lines = path.read_text().splitlines(keepends=True)
        torn = "".join([*lines[:4], '{"key": "a"}\n', lines[4], lines[5][:30]])
        path.write_text(torn)
        ask(server, tmp_path, in_flight=1)
        assert len(server.seen) == 7
        assert "2 lines are broken, and are asked again" in capsys.readouterr().err
        assert len(Ledger(tmp_path)._known) == 6


def test_a_key_of_a_request_depends_on_all_of_it():
    one = key_of("a", {"x": 1, "y": 2})
    assert one == key_of("a", {"y": 2, "x": 1})
    assert len({one, key_of("b", {"x": 1, "y": 2}), key_of("a", {"x": 1})}) == 3


def test_a_reply_that_is_cut_or_counts_nothing(tmp_path):
    body = json.loads(completion("text", "length"))
    for usage in ({"prompt_tokens": -1, "completion_tokens": "3"}, None, []):
        body["usage"] = usage
        text = json.dumps(body).encode()
        with serving(lambda _, before, text=text: text) as server:
            assert ask(server, tmp_path / str(usage), ITEMS[:1]) == [
                Said("text", True, 0, 0)
            ]


def test_what_it_costs_is_estimated(tmp_path):
    with serving(lambda body, before: GOOD) as server:
        own = asked(server, tmp_path, max_tokens=1000)
    letters = sum(len(instructions.text(item, 4)) for item in ITEMS)
    text = costs.estimate(own, ITEMS, Prices(2.0, 10.0))
    read, likely, most = letters / 4, 6 * 400, 6000
    assert f"6 requests to stand-in at {own.address}" in text
    assert "about 2.4 k to write, 6 k at most" in text
    assert text.endswith(
        f"about {(2 * read + 10 * likely) / 1e6:.2f}, at most "
        f"{(2 * read + 10 * most) / 1e6:.2f} by these prices"
    )
    unknown = costs.estimate(own, ITEMS, Prices(None, 10.0))
    assert unknown.endswith("without --price-in and --price-out the cost is not known")
    assert costs.spent(1_000_000, 2, Prices(3.0, 0.0)) == (
        "1,000,000 tokens read, 2 written: 3.00 by these prices"
    )


@pytest.mark.parametrize(
    "url", ["http://h/v1", "http://h/v1/", "http://h/v1/chat/completions"]
)
def test_the_address_of_completions(tmp_path, url):
    own = Endpoint(url, "m", "", 1, 1.0, 1, 0.0, 1, 1, 0, tmp_path)
    assert own.address == "http://h/v1/chat/completions"
