"""A stand-in for the Hugging Face hub on this machine.

It has the few answers that a download and a read of byte ranges need: lists of files,
files, and parts of files.
"""

import hashlib
import http.server
import json
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BRANCH = "trials/short"
TOKEN = "hf_of_the_owner"


class Request(NamedTuple):
    """A request, and how much of a file was sent for it.

    Attributes:
      method: "GET" or "HEAD".
      path: without the parameters.
      ranged: whether only a part of a file was asked for.
      sent: bytes of a file; 0 for all other answers.
    """

    method: str
    path: str
    ranged: bool
    sent: int

    @property
    def file(self):
        """The name of the file that was asked for; "" if it was something else."""
        return self.path.rpartition("/")[2] if "/resolve/" in self.path else ""


@contextmanager
def serve(folder: Path):
    """Serves `folder/owner/name/` as models; yields the address and a list of requests.

    Models whose name begins with "gated" are refused as gated models are, those whose
    name begins with "private" to everyone without `TOKEN`. Each model has the branches
    `main` and `BRANCH`, and the commit `COMMIT`, all with the same files.
    """
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()

        def log_message(self, *_):
            pass

        def answer(self):
            path, _, parameters = self.path.strip("/").partition("?")
            path = path.replace("%2F", "/").replace(BRANCH, "BRANCH")
            parts = path.split("/")
            if parts[:2] == ["api", "models"]:
                self.send_json(parts[2:], "recursive=true" in parameters.lower())
            elif len(parts) > 4 and parts[2] == "resolve":
                self.send_file(parts)
            else:
                self.refuse(404, "EntryNotFound")

        def send_json(self, parts, recursive):
            """owner/name[/revision/REVISION] or owner/name/tree/REVISION/folder."""
            model = folder / parts[0] / parts[1]
            view, revision = parts[2:4] or ("revision", "main")
            if parts[1].startswith("gated"):
                self.refuse(403, "GatedRepo")
            elif not model.is_dir() or not self.may_read(parts):
                self.refuse(401, "RepoNotFound")
            elif revision not in ("main", "BRANCH", COMMIT):
                self.refuse(404, "RevisionNotFound")
            elif view == "tree":
                inside = model.joinpath(*parts[4:])
                found = inside.rglob("*") if recursive else inside.glob("*")
                self.send(200, json.dumps([entry(p, model) for p in sorted(found)]))
            else:
                files = [path for path in sorted(model.rglob("*")) if path.is_file()]
                names = [path.relative_to(model).as_posix() for path in files]
                siblings = [{"rfilename": name} for name in names]
                about = {"id": "/".join(parts[:2]), "sha": COMMIT, "siblings": siblings}
                self.send(200, json.dumps(about))

        def send_file(self, parts):
            """owner/name/resolve/REVISION/path."""
            file = folder.joinpath(*parts[:2], *parts[4:])
            if not file.is_file() or not self.may_read(parts):
                self.refuse(404, "EntryNotFound")
                return
            content = file.read_bytes()
            tag = hashlib.sha1(content).hexdigest()
            headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}
            if wanted := self.headers["Range"]:
                start, last = map(int, wanted.removeprefix("bytes=").split("-"))
                part = content[start : last + 1]
                stop = start + len(part) - 1
                headers["Content-Range"] = f"bytes {start}-{stop}/{len(content)}"
                self.send(206, part, headers)
            else:
                self.send(200, content, headers)

        def may_read(self, parts):
            private = parts[1].startswith("private")
            return not private or self.headers["Authorization"] == f"Bearer {TOKEN}"

        def refuse(self, status, code):
            self.send(status, "{}", {"X-Error-Code": code})

        def send(self, status, content, headers=None):
            content = content.encode() if isinstance(content, str) else content
            path = self.path.partition("?")[0].strip("/").replace("%2F", "/")
            is_file = "ETag" in (headers or {}) and self.command == "GET"
            sent = len(content) if is_file else 0
            requests.append(Request(self.command, path, "Range" in self.headers, sent))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
        server.shutdown()


def entry(path, model):
    """A file or folder as the hub lists it."""
    name = path.relative_to(model).as_posix()
    oid = hashlib.sha1(name.encode()).hexdigest()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": oid}
    return {"type": "file", "path": name, "oid": oid, "size": path.stat().st_size}
