"""Many clients at once: does each get the answer that it would get alone, and when?

    python benchmarks/server.py --clients=200 --seconds=120

Starts a server of the embedded model in a process of its own. Each client asks one
question after the other, some as streams, and leaves every tenth stream early. Every
other answer is compared with what the model says to that request alone. Prints how long
answers took, beside those of a single client, and the server's memory at the beginning
and the end of the time. Exits with 1 if an answer differs, or if nothing was answered.
"""

import argparse
import asyncio
import base64
import itertools
import json
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from musilingo_jax.answering.model import Model

CLIPS = Path(__file__).parents[1] / "musilingo_jax/assets/musilingo-tiny-corpus/clips"
QUESTIONS = (
    "What is the tempo?",
    "What style of music is this?",
    "Which instrument plays the melody?",
    "Describe this music.",
)
SONGS = 3
_LEAVE_EVERY = 10
_MODEL = "musilingo-tiny"


@dataclass
class Results:
    """What the clients have seen.

    Attributes:
      seconds: of each answer.
      first: seconds until the first piece of each stream.
      wrong: answers that are not the model's, with what they should be.
      statuses: of all responses.
      left: streams that were left early.
    """

    seconds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    wrong: list[tuple[str, str]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    left: int = 0


def expected() -> dict[tuple[str, str], str]:
    """(song, question) → what the model says to it alone."""
    songs = sorted(CLIPS.glob("*.ogg"))[:SONGS]
    with Model.load(rows=1) as model:
        return {
            (str(song), question): model.ask(str(song), question)
            for song, question in itertools.product(songs, QUESTIONS)
        }


async def ask(
    http: httpx2.AsyncClient,
    body: dict,
    right: str,
    results: Results,
    *,
    leave: bool,
) -> None:
    """Sends a request; compares its answer, or leaves after its first piece."""
    began = time.monotonic()
    if not body.get("stream"):
        response = await http.post("/v1/chat/completions", json=body)
        results.statuses[response.status_code] += 1
        if response.status_code != 200:
            await asyncio.sleep(float(response.headers.get("Retry-After", 1)))
            return
        text = response.json()["choices"][0]["message"]["content"]
    else:
        text = ""
        async with http.stream("POST", "/v1/chat/completions", json=body) as response:
            results.statuses[response.status_code] += 1
            if response.status_code != 200:
                await asyncio.sleep(float(response.headers.get("Retry-After", 1)))
                return
            async for line in response.aiter_lines():
                if not line.startswith("data: ") or line.endswith("[DONE]"):
                    continue
                for choice in json.loads(line[6:])["choices"]:
                    piece = choice["delta"].get("content") or ""
                    if piece and not text:
                        results.first.append(time.monotonic() - began)
                    text += piece
                if text and leave:
                    results.left += 1
                    return
    results.seconds.append(time.monotonic() - began)
    if text != right:
        results.wrong.append((text, right))


async def run(
    address: str, answers: dict[tuple[str, str], str], clients: int, seconds: float
) -> Results:
    """Lets clients ask for some time."""
    results = Results()
    encoded = {
        song: base64.b64encode(Path(song).read_bytes()).decode() for song, _ in answers
    }
    end = time.monotonic() + seconds
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)

    async def client(number: int, http: httpx2.AsyncClient) -> None:
        chance = random.Random(number)
        for count in itertools.count(number):
            if time.monotonic() > end:
                return
            song, question = chance.choice(list(answers))
            sound = {"data": encoded[song], "format": "ogg"}
            content = [
                {"type": "input_audio", "input_audio": sound},
                {"type": "text", "text": question},
            ]
            messages = [{"role": "user", "content": content}]
            body = {"model": _MODEL, "messages": messages, "stream": count % 2 == 0}
            leave = count % _LEAVE_EVERY == 0
            await ask(http, body, answers[song, question], results, leave=leave)

    async with httpx2.AsyncClient(base_url=address, timeout=600, limits=limits) as http:
        await asyncio.gather(*(client(number, http) for number in range(clients)))
    return results


def memory_of(process: int) -> float:
    """Megabytes that a process has in memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def shown(name: str, values: list[float]) -> str:
    """A line with the median and the 95th percentile."""
    if len(values) < 2:
        return f"{name}: too few"
    cuts = statistics.quantiles(values, n=20)
    return f"{name}: p50 {cuts[9]:.2f} s, p95 {cuts[18]:.2f} s ({len(values)})"


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--rows", type=int, default=16)
    given = parser.parse_args()
    answers = expected()
    flags = [f"--rows={given.rows}", f"--queue={given.clients}"]
    flags += ["--port=0", "--per-minute=0", "--time-limit=600"]
    server = subprocess.Popen(
        [sys.executable, "-m", "musilingo_jax.serve", *flags],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1].removesuffix("/v1")
        one = asyncio.run(run(address, answers, 1, max(10.0, given.seconds / 6)))
        # All rows were used then, and all that is compiled was.
        asyncio.run(run(address, answers, given.clients, max(5.0, given.seconds / 6)))
        before = memory_of(server.pid)
        many = asyncio.run(run(address, answers, given.clients, given.seconds))
        after = memory_of(server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(60)
    print(shown("1 client, answers", one.seconds))
    print(shown("1 client, first pieces", one.first))
    print(shown(f"{given.clients} clients, answers", many.seconds))
    print(shown(f"{given.clients} clients, first pieces", many.first))
    rate = len(many.seconds) / given.seconds
    alone = len(one.seconds) / max(10.0, given.seconds / 6)
    print(f"answers per second: {alone:.2f} for 1 client, {rate:.2f} for all")
    print(f"left early: {many.left}; statuses: {dict(many.statuses)}")
    print(f"memory: {before:.0f} MB before, {after:.0f} MB after; exit {status}")
    wrong = one.wrong + many.wrong
    print(f"answers that differ from those of the request alone: {len(wrong)}")
    for text, right in wrong[:5]:
        print(f"  {text!r}, not {right!r}")
    return int(bool(wrong) or not many.seconds)


if __name__ == "__main__":
    sys.exit(main())
