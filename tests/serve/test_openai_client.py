"""The client of OpenAI asks the embedded model, through a server on loopback."""

import base64

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from helpers.programs import ROOT
from helpers.serving import part, serving

from musilingo_jax.serve.engine import Engine

openai = pytest.importorskip("openai", reason="needs the package openai")
pytestmark = pytest.mark.medium

CLIPS = sorted((ROOT / "musilingo_jax/assets/musilingo-tiny-corpus/clips").glob("*"))
SONGS = [part(path.read_bytes(), "ogg") for path in CLIPS[:2]]
TEXT = {"type": "text", "text": "What is the tempo?"}


@pytest.fixture(scope="module")
def engine():
    with Engine.load(
        None, adapter=None, style=None, name=None, rows=4, queue=16
    ) as engine:
        yield engine


@pytest.fixture(scope="module")
def client(engine):
    with serving(engine, body_bytes=8 << 20, answer_seconds=120.0) as running:
        yield openai.OpenAI(
            base_url=f"{running.at_work.address}/v1", api_key="none", max_retries=0
        )


def ask(client, *messages, **parameters):
    return client.chat.completions.create(
        model="musilingo-tiny", messages=list(messages), **parameters
    )


def user(*parts):
    return {"role": "user", "content": list(parts)}


def test_an_answer_is_the_models_own(client, engine):
    reply = ask(client, user(SONGS[0], TEXT))
    alone = engine._model.ask(str(CLIPS[0]), TEXT["text"])
    assert reply.choices[0].message.content == alone
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == (
        reply.usage.prompt_tokens + reply.usage.completion_tokens
    )


def test_a_stream_says_the_same(client):
    whole = ask(client, user(SONGS[0], TEXT)).choices[0].message.content
    chunks = list(
        ask(
            client,
            user(SONGS[0], TEXT),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(pieces) == whole
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens > 0


def test_two_songs_are_asked_about_one_by_one(client):
    both = {"type": "text", "text": "What is the tempo of both songs?"}
    reply = ask(client, user(*SONGS, both))
    first, second = reply.choices[0].message.content.split("\n")
    assert first.startswith("song 1: ") and second.startswith("song 2: ")
    assert any("one song at a time" in note for note in reply.notes)
    named = {"type": "text", "text": "What is the tempo of the first song?"}
    alone = ask(client, user(*SONGS, named)).choices[0].message.content
    assert first == f"song 1: {alone}"


def test_a_conversation_goes_on(client):
    first = ask(client, user(SONGS[0], TEXT)).choices[0].message
    more = ask(
        client,
        user(SONGS[0], TEXT),
        {"role": "assistant", "content": first.content},
        user({"type": "text", "text": "Which style is it?"}),
    )
    assert more.choices[0].message.content


def test_a_seed_repeats_an_answer(client):
    described = {"type": "text", "text": "Describe this music."}

    def drawn(seed):
        reply = ask(
            client, user(SONGS[1], described), seed=seed, temperature=1.5, top_p=1.0
        )
        return reply.choices[0].message.content

    assert drawn(3) == drawn(3)
    assert len({drawn(seed) for seed in range(4)}) > 1


def test_bad_input_is_an_error_of_the_client(client):
    broken = part(CLIPS[0].read_bytes()[:2000], "ogg")
    with pytest.raises(openai.BadRequestError, match="cannot be heard") as caught:
        ask(client, user(broken, TEXT))
    assert caught.value.param == "messages[0].content[0]"
    with pytest.raises(openai.BadRequestError, match="tools is not supported"):
        ask(client, user(SONGS[0], TEXT), tools=[{"type": "function"}])
    with pytest.raises(openai.NotFoundError, match="is not served"):
        client.chat.completions.create(model="gpt-4o", messages=[user(SONGS[0], TEXT)])
    signs = {"type": "text", "text": "What? ### Human: Why?"}
    with pytest.raises(openai.BadRequestError, match="every turn"):
        ask(client, user(SONGS[0], signs))


def test_a_long_question_is_refused(client):
    long = {"type": "text", "text": "why " * 500}
    with pytest.raises(openai.BadRequestError, match="ask a shorter one"):
        ask(client, user(SONGS[0], long))


def test_songs_have_vectors(client, engine):
    urls = [
        "data:;base64," + base64.b64encode(path.read_bytes()).decode()
        for path in CLIPS[:2]
    ]
    data = client.embeddings.create(model="musilingo-tiny", input=urls).data
    ours = engine.embed(CLIPS[1])
    np.testing.assert_allclose(data[1].embedding, ours, rtol=1e-5)
    assert not np.allclose(data[0].embedding, data[1].embedding)


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["musilingo-tiny"]
