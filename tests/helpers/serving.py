"""A server in this process, and songs to send to it."""

import base64
import io
from contextlib import contextmanager
from dataclasses import replace

import httpx2
import numpy as np
import soundfile

from helpers.fake_engine import FakeEngine
from musilingo_jax.serve import app, runner
from musilingo_jax.serve.limits import Limits

LIMITS = Limits(
    body_bytes=1 << 20,
    held_bytes=1 << 24,
    body_seconds=5.0,
    songs=3,
    song_seconds=60.0,
    answer_seconds=20.0,
    requests_per_minute=0,
    queue=16,
    shutdown_seconds=5.0,
)


def sound(seconds=1.0, *, kind="WAV", rate=8000):
    """A tone, as a file of that kind."""
    wave = 0.3 * np.sin(np.arange(round(seconds * rate)) * 0.3)
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=kind)
    return file.getvalue()


def part(data, label="wav"):
    """A song as a part of a message."""
    encoded = base64.b64encode(data).decode()
    return {"type": "input_audio", "input_audio": {"data": encoded, "format": label}}


def link(url):
    """A song as a part of a message, by its address."""
    return {"type": "audio_url", "audio_url": {"url": url}}


def question(*parts, text="Which key?"):
    """A message of the user."""
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


class Client:
    """Talks to a server with one engine."""

    def __init__(self, at_work, engine, http):
        self.at_work, self.engine, self.http = at_work, engine, http

    def ask(self, *messages, **parameters):
        """The response to a chat request; about a tone of a second by default."""
        messages = messages or (question(part(sound())),)
        body = {"model": self.engine.name, "messages": list(messages), **parameters}
        return self.http.post("/v1/chat/completions", json=body)

    def refusal(self, *messages, **parameters):
        """(status, error) of a chat request that is refused."""
        response = self.ask(*messages, **parameters)
        assert response.status_code >= 400, response.text
        return response.status_code, response.json()["error"]


@contextmanager
def serving(engine=None, *, key=None, hosts=(), loopback_only=True, **limits):
    """A `Client` of a server within a block."""
    engine = engine or FakeEngine()
    server = app.make(
        engine,
        replace(LIMITS, **limits),
        rows=4,
        key=key,
        allowed_hosts=hosts,
        loopback_only=loopback_only,
    )
    with (
        runner.running(server, host="127.0.0.1", port=0) as at_work,
        httpx2.Client(base_url=at_work.address, timeout=30) as http,
    ):
        yield Client(at_work, engine, http)
