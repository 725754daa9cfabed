"""What a server refuses, whoever asks: keys, sizes, rates, times, addresses, hosts."""

import socket
import tempfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from helpers.fake_engine import FakeEngine
from helpers.serving import link, part, question, serving, sound

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.serve import addresses, keys
from musilingo_jax.serve.rates import Rates

KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def client():
    with serving(hosts=("allowed.example",)) as client:
        yield client


def test_a_key_is_asked_for_everywhere_but_at_the_health_check():
    with serving(key=KEY) as client:
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nowhere"):
            for shown in ({}, {"Authorization": f"Bearer {KEY}x"}):
                response = client.http.get(path, headers=shown)
                assert response.status_code == 401, path
                error = response.json()["error"]
                assert error["type"] == "authentication_error"
                assert KEY not in error["message"]
        assert client.http.get("/healthz").status_code == 200
        client.http.headers["Authorization"] = f"Bearer {KEY}"
        assert client.http.get("/v1/models").status_code == 200
        assert client.ask().status_code == 200


@pytest.mark.parametrize(
    ("header", "right"),
    [
        (f"Bearer {KEY}", True),
        (f"bearer  {KEY} ", True),
        (KEY, False),
        (f"Basic {KEY}", False),
        ("Bearer ", False),
        (f"Bearer {KEY[:-1]}é", False),
        (None, False),
    ],
)
def test_a_key_is_shown_in_one_way(header, right):
    assert keys.matches(KEY, header) == right


def test_a_key_is_read_from_a_file_or_the_environment(tmp_path, monkeypatch):
    assert keys.load(None) is None
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert keys.load(str(tmp_path / "key")) == KEY
    monkeypatch.setenv(keys.VARIABLE, KEY[::-1])
    assert keys.load(None) == KEY[::-1]
    for bad in ("short", "a key with several words", "schlüssel-schlüssel"):
        (tmp_path / "key").write_text(bad)
        with pytest.raises(UserError, match="a key has at least 16"):
            keys.load(str(tmp_path / "key"))
    with pytest.raises(UserError, match="cannot be read: No such file"):
        keys.load(str(tmp_path / "nowhere"))


def test_a_page_of_another_site_cannot_ask():
    """Its name may point to this machine, and its forms are no JSON."""
    with serving() as client:
        others = (
            "evil.example",
            "evil.example:80",
            "localhost.evil.example",
            "testserver",
        )
        for host in others:
            response = client.http.get("/v1/models", headers={"Host": host})
            assert response.status_code == 403
        for host in ("localhost:1", "127.0.0.1", "[::1]:8000"):
            response = client.http.get("/v1/models", headers={"Host": host})
            assert response.status_code == 200
    with serving(loopback_only=False) as client:
        response = client.http.get("/v1/models", headers={"Host": "my.example"})
        assert response.status_code == 200


def test_a_long_request_is_refused_and_the_client_learns_it():
    with serving(body_bytes=1 << 20) as client:
        status, error = client.refusal(question(part(bytes(1 << 20))))
        assert (status, error["code"]) == (413, "too_large")
        assert "longer than 1 MiB" in error["message"]

        def endless():
            for _ in range(32):
                yield b"x" * (1 << 16)

        response = client.http.post("/v1/chat/completions", content=endless())
        assert response.status_code == 413
        assert client.engine.asked == []


def test_all_requests_together_may_not_fill_the_memory():
    with serving(body_bytes=1 << 20, held_bytes=1 << 19) as client:
        status, error = client.refusal(question(part(bytes(1 << 19))))
        assert (status, error["code"]) == (429, "busy")
        assert client.ask().status_code == 200


def test_a_slow_upload_ends():
    with serving(body_seconds=0.3) as client:
        place = client.http.base_url
        with socket.create_connection((place.host, place.port)) as raw:
            raw.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
            )
            began = time.monotonic()
            answer = b"".join(iter(lambda: raw.recv(4096), b""))
        assert b" 408 " in answer.split(b"\r\n")[0]
        assert b"took longer than 0.3 s" in answer
        assert time.monotonic() - began < 5


def test_one_address_asks_so_many_times_in_a_minute():
    with serving(requests_per_minute=3) as client:
        assert [client.ask().status_code for _ in range(4)] == [200, 200, 200, 429]
        response = client.ask()
        assert response.json()["error"]["type"] == "rate_limit_error"
        assert 1 <= int(response.headers["Retry-After"]) <= 20
        # What others write in front of a proxy is not believed.
        forwarded = {"X-Forwarded-For": "8.8.8.8"}
        assert client.http.get("/v1/models", headers=forwarded).status_code == 429
        assert client.http.get("/healthz").status_code == 200


def test_requests_are_refilled_evenly():
    now = [0.0]
    rates = Rates(6, lambda: now[0])
    assert [rates.wait("a") for _ in range(7)] == [0] * 6 + [10]
    assert rates.wait("b") == 0
    now[0] = 10.0
    assert rates.wait("a") == 0
    assert rates.wait("a") == 10
    now[0] = 1000.0
    assert [rates.wait("a") for _ in range(7)] == [0] * 6 + [10]


def test_rates_forget_the_oldest_addresses():
    rates = Rates(1, lambda: 0.0)
    assert rates.wait("first") == 0
    for number in range(10_000):
        rates.wait(str(number))
    assert rates.wait("first") == 0


def test_songs_leave_no_files(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = []

    class Watching(FakeEngine):
        def hear(self, path):
            folder = path.parent
            seen.append((folder.parent, folder.stat().st_mode & 0o777))
            return super().hear(path)

    with serving(Watching()) as client:
        assert client.ask().status_code == 200
        assert client.refusal(question(part(sound()[:100])))[0] == 400
    assert seen == [(tmp_path, 0o700)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\nfile:///etc/passwd\n",
        b"\x93NUMPY\x01\x00",
        b"FORM\x00\x00\x00\x04AIFF",
        b".snd\x00\x00\x00\x18",
        b"\x00\x00\x00\x20ftypM4A ",
        b"ID3\x04\x00\x00\x00\x00\x00\x00\xff\xf1\x50\x80",
        b"\xff\xf1\x50\x80\x00\x1f\xfc",
        b"caff\x00\x01\x00\x00",
        b"A text that somebody has renamed.",
    ],
)
def test_the_content_decides_what_a_song_is(client, content):
    status, error = client.refusal(question(part(content, "mp3")))
    assert (status, error["code"]) == (400, "invalid_song")
    assert "is not WAV, MP3, FLAC or Ogg, by its content" in error["message"]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("127.1.2.3", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("not an address", False),
    ],
)
def test_private_addresses_are_known_in_all_their_spellings(address, public):
    assert addresses.is_public(address) == public


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.mp3",
        "http://localhost/a.mp3",
        "http://[::1]/a.mp3",
        "http://2130706433/a.mp3",
        "http://0x7f.1/a.mp3",
        "http://169.254.169.254/latest/meta-data",
        "http://allowed.example@127.0.0.1/a.mp3",
        "http://127.0.0.1#@allowed.example/a.mp3",
        "http://allowed.example:22/a.mp3",
        "http://allowed.example.evil.example/a.mp3",
        "http://evil.example/?allowed.example",
        "ftp://allowed.example/a.mp3",
        "file:///etc/passwd",
        "//allowed.example/a.mp3",
        "/etc/passwd",
        "http://allowed.example/a b\r\nHost: x",
        "http://allowed.éxample/",
        "http://[::1/",
        "",
    ],
)
def test_only_named_hosts_are_fetched_from(client, url, monkeypatch):
    def unreachable(*arguments, **options):
        raise AssertionError("a look-up or a connection")

    client.ask()  # So that the client is connected.
    monkeypatch.setattr(addresses.socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(addresses.socket, "create_connection", unreachable)
    status, error = client.refusal(question(link(url)))
    assert status == 400
    assert error["code"] in ("host_not_allowed", "invalid_url")


class Songs(BaseHTTPRequestHandler):
    """Sends a song, or misbehaves, by the path."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["Host"]))
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1/secret")
            self.end_headers()
            return
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        if self.path == "/endless":
            with_end = 0
            while with_end < 64:
                self.wfile.write(bytes(1 << 16))
                with_end += 1
        elif self.path == "/slow":
            self.server.left.wait(5)
        else:
            self.wfile.write(sound(3.0))

    def log_message(self, *_):
        pass


@contextmanager
def another_host(monkeypatch, found=("93.184.216.34",)):
    """A host `songs.example` that has public addresses, and is in this process."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Songs)
    server.asked, server.left = [], threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    connect, look_up = socket.create_connection, socket.getaddrinfo
    connected = []

    def resolve(host, *arguments, **options):
        if host != "songs.example":
            return look_up(host, *arguments, **options)
        return [(2, 1, 6, "", (address, port)) for address in found]

    def to_it(address, *arguments, **options):
        connected.append(address[0])
        return connect(("127.0.0.1", port), *arguments, **options)

    monkeypatch.setattr(addresses.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(addresses.socket, "create_connection", to_it)
    try:
        yield server, connected
    finally:
        server.left.set()
        server.shutdown()
        server.server_close()


def fetched(path, *, most_bytes=1 << 20, seconds=5.0):
    return addresses.fetch(
        f"http://songs.example{path}",
        allowed=("songs.example",),
        most_bytes=most_bytes,
        seconds=seconds,
        param="p",
    )


def test_a_song_is_fetched_from_the_address_that_was_checked(monkeypatch):
    with another_host(monkeypatch) as (server, connected):
        assert fetched("/a.wav?b=c") == sound(3.0)
        assert server.asked == [("/a.wav?b=c", "songs.example")]
        assert connected == ["93.184.216.34"]


@pytest.mark.parametrize(
    "found", [("127.0.0.1",), ("93.184.216.34", "10.0.0.1"), ("::ffff:10.0.0.1",), ()]
)
def test_a_host_with_a_private_address_is_refused(monkeypatch, found):
    with another_host(monkeypatch, found) as (server, connected):
        with pytest.raises(addresses.Refusal, match="not of the public internet"):
            fetched("/a.wav")
        assert connected == server.asked == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/moved", "status 302, which redirects"),
        ("/missing", "status 404"),
        ("/endless", "longer than 1 MiB"),
        ("/slow", "took longer than 0.3 s"),
    ],
)
def test_a_host_that_misbehaves_is_left(monkeypatch, path, says):
    seconds = 0.3 if path == "/slow" else 5.0
    with another_host(monkeypatch) as (server, _):
        with pytest.raises(addresses.Refusal, match=says):
            fetched(path, seconds=seconds)
        assert len(server.asked) == 1
