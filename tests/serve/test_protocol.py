"""The server speaks the protocol: answers, streams, refusals. The model is a fake."""

import base64
import json

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from helpers.serving import link, part, question, serving, sound


@pytest.fixture(scope="module")
def client():
    with serving() as client:
        yield client


def events(response):
    """The chunks of a stream, which ends as the protocol says."""
    lines = [line for line in response.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_an_answer_has_the_form_of_the_protocol(client):
    response = client.ask(question(part(sound(2.0))), seed=5)
    assert response.status_code == 200
    body = response.json()
    assert body["object"] == "chat.completion"
    assert body["model"] == "fake"
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"] == {
        "role": "assistant",
        "content": "Which key? (2 s; seed 5)",
        "refusal": None,
    }
    assert body["notes"] == ["the words are its own"]
    usage = body["usage"]
    assert usage == {
        "prompt_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens": 6,
        "total_tokens": 13,
    }


def test_a_stream_spells_the_answer_and_tells_its_end(client):
    response = client.ask(seed=5, stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    first, *pieces, end, usage = events(response)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(piece["choices"][0]["delta"]["content"] for piece in pieces)
    assert text == "Which key? (1 s; seed 5)"
    assert end["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert end["notes"] == ["the words are its own"]
    assert usage["choices"] == [] and usage["usage"]["total_tokens"] == 13
    assert all(piece["usage"] is None for piece in pieces)
    assert len({piece["id"] for piece in (first, *pieces, usage)}) == 1


def test_a_stream_shows_usage_only_if_asked(client):
    assert all("usage" not in chunk for chunk in events(client.ask(stream=True)))


def test_several_choices_have_several_seeds(client):
    body = client.ask(n=3, seed=5).json()
    texts = [choice["message"]["content"] for choice in body["choices"]]
    assert [text[-2:] for text in texts] == ["5)", "6)", "7)"]
    assert body["usage"]["completion_tokens"] == 18
    streamed = events(client.ask(n=2, seed=5, stream=True))
    ends = [c["index"] for e in streamed for c in e["choices"] if c["finish_reason"]]
    assert sorted(ends) == [0, 1]


def test_without_a_seed_each_answer_has_its_own(client):
    answers = {
        client.ask().json()["choices"][0]["message"]["content"] for _ in range(3)
    }
    assert len(answers) == 3


def test_a_conversation_has_songs_in_several_turns(client):
    client.ask(
        question(part(sound(1.0)), part(sound(2.0)), text="Which is longer?"),
        {"role": "assistant", "content": "The second."},
        question(part(sound(3.0)), text="And now?"),
    )
    songs, earlier, asked, _ = client.engine.asked[-1]
    assert [song.seconds for song in songs] == [1, 2, 3]
    assert earlier == (("Which is longer?", "The second."),)
    assert asked == "And now?"


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_songs_are_of_four_kinds(client, kind):
    assert client.ask(question(part(sound(kind=kind, rate=16000)))).status_code == 200


def test_a_song_may_be_a_data_url(client):
    url = "data:audio/x-anything;base64," + base64.b64encode(sound()).decode()
    assert client.ask(question(link(url))).status_code == 200


def test_a_song_is_heard_once_for_all_questions_about_it():
    with serving() as client:
        for _ in range(3):
            assert client.ask().status_code == 200
        assert client.engine.heard == 1


def test_parameters_reach_the_decoder(client):
    response = client.ask(
        temperature=0.5,
        top_p=0.9,
        stop=["\n", "##"],
        seed=3,
        max_completion_tokens=2,
    )
    decoding = client.engine.asked[-1][3]
    assert (decoding.temperature, decoding.top_p) == (0.5, 0.9)
    assert decoding.stop[-2:] == ("\n", "##")
    assert decoding.max_new_tokens == 2
    (choice,) = response.json()["choices"]
    assert choice["message"]["content"] == "Which key?"
    assert choice["finish_reason"] == "length"


def test_more_tokens_than_the_model_writes_are_its_own_number(client):
    client.ask(max_tokens=10**6)
    assert (
        client.engine.asked[-1][3].max_new_tokens
        == client.engine.decoding.max_new_tokens
    )


def test_parameters_that_ask_for_nothing_are_taken(client):
    asked = {"frequency_penalty": 0, "logprobs": False, "tools": [], "user": "me"}
    asked |= {"response_format": {"type": "text"}, "presence_penalty": 0.0, "n": 1}
    assert client.ask(**asked).status_code == 200


@pytest.mark.parametrize(
    ("parameters", "param", "says"),
    [
        ({"tools": [{}]}, "tools", "calls no tools"),
        ({"logprobs": True}, "logprobs", "not returned"),
        ({"frequency_penalty": 1}, "frequency_penalty", "not penalised"),
        ({"response_format": {"type": "json_object"}}, "response_format", "plain text"),
        ({"wisdom": 1}, "wisdom", "not a parameter that this server knows"),
        ({"temperature": 3}, "temperature", "temperature is 3: input should be less"),
        ({"temperature": "hot"}, "temperature", "'hot'"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"n": 9}, "n", "less than or equal to 8"),
        ({"seed": 2**63}, "seed", "less than"),
        ({"stop": ["a"] * 5}, "stop", "at most 4 texts"),
        ({"stop": ""}, "stop", "1 to 64 characters"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "differ"),
        ({"stream_options": {}}, "stream_options", "stream: true only"),
        ({"messages": []}, "messages", "at least 1 item"),
    ],
)
def test_parameters_are_refused_in_a_sentence(client, parameters, param, says):
    status, error = client.refusal(**parameters)
    assert status == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert says in error["message"]
    assert "\n" not in error["message"]


USER = question(part(sound()))
ANSWER = {"role": "assistant", "content": "C"}
SYSTEM = {"role": "system", "content": "Be kind."}
SONG = "[0].content[0]"
URL = f"{SONG}.audio_url.url"


@pytest.mark.parametrize(
    ("messages", "param", "code"),
    [
        ([SYSTEM, USER], "[0].role", "unsupported_role"),
        ([USER, {"role": "developer", "content": "."}], "[1].role", "unsupported_role"),
        ([USER, USER], "[1].role", "wrong_turn"),
        ([ANSWER, USER], "[0].role", "wrong_turn"),
        ([USER, ANSWER], "", "wrong_turn"),
        ([{"role": "user", "content": "Hello?"}], "", "no_song"),
        ([question(*[part(sound())] * 4)], "[0].content[3]", "too_many_songs"),
        ([{"role": "user", "content": [part(sound())]}], "[0].content", "no_text"),
        ([question(part(b"no song"))], SONG, "invalid_song"),
        ([question(part(b""))], SONG, "invalid_song"),
        ([question(part(sound()[:60]))], SONG, "invalid_song"),
        ([question(part(sound(61, kind="FLAC")))], SONG, "invalid_song"),
        ([question(link("data:;base64,***"))], URL, "invalid_base64"),
        ([question(link("data:nothing"))], URL, "invalid_url"),
        ([question(link("file:///etc/passwd"))], URL, "invalid_url"),
        ([question({"type": "image_url"})], SONG, "invalid_value"),
        ([question({"type": "text"})], "[0].content[0].text", "missing_parameter"),
        ([{"role": "robot", "content": "x"}], "[0]", "invalid_value"),
    ],
)  # fmt: skip
def test_messages_are_refused_by_their_place(client, messages, param, code):
    before = len(client.engine.asked)
    status, error = client.refusal(*messages)
    assert (status, error["param"], error["code"]) == (400, f"messages{param}", code)
    assert len(client.engine.asked) == before
    assert "/tmp" not in error["message"]


def test_another_model_is_not_here(client):
    status, error = client.refusal(model="gpt-4o")
    assert (status, error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"model":', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"[]", "application/json"),
        (b"{}", "text/plain"),
        (b"", "application/json"),
    ],
)
def test_a_body_that_is_no_json_is_refused(client, body, kind):
    response = client.http.post(
        "/v1/chat/completions", content=body, headers={"Content-Type": kind}
    )
    assert response.status_code == 400
    assert "JSON" in response.json()["error"]["message"]


def test_models_are_listed(client):
    listed = client.http.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["fake"]
    assert client.http.get("/v1/models/fake").json() == listed[0]
    assert client.http.get("/v1/models/other").status_code == 404


def test_songs_have_embeddings(client):
    url = "data:;base64," + base64.b64encode(sound(2.0)).decode()
    asked = {"model": "fake", "input": [url, part(sound(1.0))]}
    plain = client.http.post("/v1/embeddings", json=asked).json()
    assert [entry["embedding"] for entry in plain["data"]] == [[2, 1, 2], [1, 1, 2]]
    asked["encoding_format"] = "base64"
    packed = client.http.post("/v1/embeddings", json=asked).json()["data"][0]
    vector = np.frombuffer(base64.b64decode(packed["embedding"]), "<f4")
    assert vector.tolist() == [2, 1, 2]
    asked["input"] = "a text"
    refused = client.http.post("/v1/embeddings", json=asked)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "input[0].audio_url.url"


def test_other_paths_are_refused_in_the_same_form(client):
    assert client.http.get("/v2").json()["error"]["message"].startswith("there is no")
    response = client.http.get("/v1/chat/completions")
    assert response.status_code == 405
    assert "is not possible" in response.json()["error"]["message"]


def test_metrics_count_answers_and_refusals(client):
    client.ask()
    client.refusal(n=0)
    text = client.http.get("/metrics").text
    for line in (
        'musilingo_requests_total{path="/v1/chat/completions",status="200"}',
        'musilingo_requests_total{path="/v1/chat/completions",status="400"}',
        'musilingo_answers_total{finish="stop"}',
        'musilingo_tokens_total{kind="answer"}',
        "musilingo_first_piece_seconds_count",
    ):
        assert line in text
    assert "musilingo_running 0.0" in text
