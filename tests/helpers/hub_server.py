"""A hub on this machine, with the few answers that a download needs."""

import hashlib
import http.server
import json
import threading
from contextlib import contextmanager
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve(folder: Path):
    """Serves `folder/owner/name/` as models; yields the address and what was asked:
    method, path, and how many bytes if only a part was.

    Those whose name begins with "gated" are refused as gated models are.
    """
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()

        def log_message(self, *_):
            pass

        def answer(self):
            parts = self.path.split("?")[0].strip("/").split("/")
            asked.append((self.command, "/".join(parts)))
            if parts[:2] == ["api", "models"]:
                model = folder / parts[2] / parts[3]
                if parts[3].startswith("gated"):
                    self.send(403, b"{}", {"X-Error-Code": "GatedRepo"})
                elif not model.is_dir():
                    self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                elif parts[5] not in ("main", COMMIT):
                    self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                else:
                    self.send(200, json.dumps(self.listing(model, parts)).encode(), {})
                return
            # owner/name/resolve/revision/path of the file
            file = folder / "/".join(parts[:2]) / "/".join(parts[4:])
            if "resolve" in parts and file.is_file():
                content = file.read_bytes()
                tag = hashlib.sha1(content).hexdigest()
                headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}
                if wanted := self.headers["Range"]:
                    start, last = map(int, wanted.removeprefix("bytes=").split("-"))
                    part = content[start : last + 1]
                    asked[-1] += (len(part),)
                    stop = start + len(part) - 1
                    headers["Content-Range"] = f"bytes {start}-{stop}/{len(content)}"
                    self.send(206, part, headers)
                else:
                    self.send(200, content, headers)
            else:
                self.send(404, b"", {"X-Error-Code": "EntryNotFound"})

        def listing(self, model, parts):
            files = [path for path in sorted(model.rglob("*")) if path.is_file()]
            if parts[4] == "tree":
                return [
                    {
                        "type": "file",
                        "path": path.relative_to(model).as_posix(),
                        "size": path.stat().st_size,
                        "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
                    }
                    for path in files
                ]
            names = [path.relative_to(model).as_posix() for path in files]
            siblings = [{"rfilename": name} for name in names]
            return {"id": "/".join(parts[2:4]), "sha": COMMIT, "siblings": siblings}

        def send(self, status, content, headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
