"""A stand-in for an endpoint that speaks OpenAI's protocol, with every bad habit.

    with chat_endpoint.serving(script) as server:
        … server.url … server.seen

`script` says what becomes of a request: a function of the request's body, and how often
this very request came before, that returns one of these

    "text"              a completion with that content
    500, 401, …         that status
    (429, "0.2")        that status, with Retry-After
    STALL               headers, and then nothing for as long as the test takes
    CLOSE               half of a body, and the connection is closed
    HANG_UP             the connection is closed without an answer
    bytes               that body, as JSON
    ("to", url)         a redirection
"""

import contextlib
import enum
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = enum.Enum("Fault", ["STALL", "CLOSE", "HANG_UP"])
STALL, CLOSE, HANG_UP = Fault


def completion(text, reason="stop", **more):
    """The body of a completion."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return json.dumps({"choices": [choice], "usage": usage, **more}).encode()


def pairs(*texts):
    """The content of a good reply: `question`, `answer`, `question`, …"""
    rows = zip(texts[::2], texts[1::2], strict=True)
    return json.dumps([{"question": q, "answer": a} for q, a in rows])


class Server:
    """What was asked: the bodies, in the order in which they came, and the headers."""

    def __init__(self, script):
        self.script, self.seen, self.headers = script, [], []
        self.most_at_once = 0
        self._at_once, self._lock = 0, threading.Lock()
        self.over = threading.Event()
        self._counts = Counter()

    def next_of(self, body, headers):
        with self._lock:
            key = json.dumps(body, sort_keys=True)
            before = self._counts[key]
            self._counts[key] += 1
            self.seen.append(body)
            self.headers.append(dict(headers))
        return self.script(body, before)

    @contextlib.contextmanager
    def counted(self):
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        yield
        with self._lock:
            self._at_once -= 1


@contextlib.contextmanager
def serving(script):
    """Runs a server on this machine until the block ends."""
    server = Server(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            length = int(self.headers["Content-Length"])
            body = json.loads(self.rfile.read(length))
            assert self.path == "/v1/chat/completions", self.path
            with server.counted():
                self._act(server.next_of(body, self.headers))

        def _act(self, action):
            match action:
                case str() as text:
                    self._send(200, completion(text))
                case bytes() as content:
                    self._send(200, content)
                case int() as status:
                    self._send(status, b'{"error": "no \x1b[31m"}')
                case ("to", url):
                    self._send(307, b"", Location=url)
                case (status, after):
                    self._send(status, b"slower", **{"Retry-After": after})
                case _ if action is HANG_UP:
                    self.close_connection = True
                case _:
                    content = completion("x" * 1000)
                    self._begin(200, len(content))
                    self.wfile.write(content[:500])
                    self.wfile.flush()
                    if action is STALL:
                        server.over.wait(30)
                    self.close_connection = True

        def _begin(self, status, length, **headers):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(length))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def _send(self, status, content, **headers):
            self._begin(status, len(content), **headers)
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    try:
        yield server
    finally:
        server.over.set()
        http.shutdown()
        http.server_close()
