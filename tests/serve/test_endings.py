"""Requests that end early, servers that end, and too many of them at once."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from helpers.fake_engine import FakeEngine
from helpers.serving import part, question, serving, sound

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.serve import runner

LONG = question(part(sound()), text="word " * 200)


def test_a_client_that_leaves_a_stream_frees_its_row():
    with serving(FakeEngine(seconds=0.05)) as client:
        body = {"model": "fake", "messages": [LONG], "stream": True, "n": 2}
        with client.http.stream("POST", "/v1/chat/completions", json=body) as response:
            next(response.iter_lines())
        assert client.engine.all_free()
        assert {one.finish for one in client.engine.pending} == {"cancelled"}
        text = client.http.get("/metrics").text
        assert 'musilingo_answers_total{finish="cancelled"} 2.0' in text
        assert "musilingo_running 0.0" in text


def sent(client, message):
    """A connection on which a question was sent, and nothing read."""
    body = json.dumps({"model": "fake", "messages": [message]}).encode()
    place = client.http.base_url
    raw = socket.create_connection((place.host, place.port))
    raw.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return raw


def wait_until(something):
    end = time.monotonic() + 30
    while not something():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_client_that_leaves_before_its_answer_frees_its_row():
    with serving(FakeEngine(seconds=0.05)) as client:
        raw = sent(client, LONG)
        wait_until(lambda: client.engine.pending)
        raw.close()
        assert client.engine.all_free()
        assert [one.finish for one in client.engine.pending] == ["cancelled"]


def test_a_client_that_leaves_before_its_song_is_heard_asks_nothing():
    begun, released = threading.Event(), threading.Event()

    class Slow(FakeEngine):
        def hear(self, path):
            begun.set()
            assert released.wait(30)
            return super().hear(path)

    with serving(Slow()) as client:
        first = sent(client, LONG)
        assert begun.wait(30)
        second = sent(client, LONG)  # It waits for the first one's song.
        time.sleep(0.3)
        first.close()
        second.close()
        left = 'path="/v1/chat/completions",status="499"}'
        wait_until(lambda: left in client.http.get("/metrics").text)
        released.set()
        assert client.engine.asked == []
        assert client.ask(LONG).status_code == 200
        assert client.engine.heard == 1


def test_an_answer_that_takes_too_long_ends():
    with serving(FakeEngine(seconds=0.05), answer_seconds=0.4) as client:
        status, error = client.refusal(LONG)
        assert (status, error["type"]) == (504, "timeout_error")
        assert "longer than 0.4 s" in error["message"]
        response = client.ask(LONG, stream=True)
        assert response.status_code == 200
        *_, late, done = response.text.strip().split("\n\n")
        assert '"timeout_error"' in late and done == "data: [DONE]"
        assert client.engine.all_free()
        assert {one.finish for one in client.engine.pending} == {"cancelled"}


def test_a_full_queue_is_a_429():
    with (
        serving(FakeEngine(seconds=0.02, room=2)) as client,
        ThreadPoolExecutor(6) as threads,
    ):
        message = question(part(sound()), text="word " * 20)
        responses = list(threads.map(lambda _: client.ask(message), range(6)))
        statuses = [response.status_code for response in responses]
        assert statuses.count(200) >= 2 and statuses.count(429) >= 1
        refused = next(r for r in responses if r.status_code == 429)
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["Retry-After"]) >= 1
        # A request of several answers takes all of its places, or none.
        assert client.ask(message, n=3).status_code == 429
        assert client.engine.all_free()


def test_an_error_of_the_model_is_the_servers_fault(capfd):
    class Broken(FakeEngine):
        def submit(self, *_):
            raise ZeroDivisionError("secret")

        def embed(self, path):
            raise UserError(f"{path}: is silent")

    with serving(Broken()) as client:
        status, error = client.refusal()
        assert (status, error["type"]) == (500, "server_error")
        assert "secret" not in error["message"]
        assert "ZeroDivisionError: secret" in capfd.readouterr().err
        asked = {"model": "fake", "input": part(sound())}
        response = client.http.post("/v1/embeddings", json=asked)
        message = response.json()["error"]["message"]
        assert message == "the song input[0] cannot be heard: is silent"


def test_an_ending_server_finishes_its_answers():
    engine = FakeEngine(seconds=0.02)
    with serving(engine) as client, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(client.ask, question(part(sound()), text="word " * 40))
        while not engine.pending:
            time.sleep(0.01)
        began = time.monotonic()
        client.at_work.stop()
        assert 0.3 < time.monotonic() - began < 4
        assert answer.result().json()["choices"][0]["finish_reason"] == "stop"
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{client.at_work.address}/healthz")


def test_an_ending_server_does_not_wait_for_ever():
    engine = FakeEngine(seconds=0.05)
    with (
        serving(engine, shutdown_seconds=0.5) as client,
        ThreadPoolExecutor(2) as threads,
    ):
        whole = threads.submit(client.ask, LONG)
        streamed = threads.submit(client.ask, LONG, stream=True)
        while len(engine.pending) < 2:
            time.sleep(0.01)
        began = time.monotonic()
        client.at_work.stop()
        assert time.monotonic() - began < 2
        assert engine.all_free()
        assert whole.result().status_code == 503
        assert "the server ends" in whole.result().json()["error"]["message"]
        assert "the server ends" in streamed.result().text


def test_a_port_that_is_taken_is_one_sentence():
    first = runner.bind("127.0.0.1", 0)
    port = first.getsockname()[1]
    with pytest.raises(UserError, match=f"127.0.0.1:{port} cannot be listened at"):
        runner.bind("127.0.0.1", port)
    first.close()
    with pytest.raises(UserError, match="--host=no.such.host.invalid: is no address"):
        runner.bind("no.such.host.invalid", 0)
    with pytest.raises(UserError, match="is no address"):
        runner.bind("a" * 300, 0)


def test_a_server_that_warms_up_says_so():
    with serving() as client:
        state = client.at_work.state
        state.is_warm = False
        health = client.http.get("/healthz")
        assert health.status_code == 503 and health.json()["status"] == "warming"
        response = client.ask()
        assert response.status_code == 503 and response.headers["Retry-After"]
        assert response.json()["error"]["code"] == "warming"
        asked = {"model": "fake", "input": part(sound())}
        assert client.http.post("/v1/embeddings", json=asked).status_code == 503
        assert client.http.get("/v1/models").status_code == 200
        state.is_warm = True
        assert client.http.get("/healthz").json()["status"] == "ok"
        assert client.ask().status_code == 200
