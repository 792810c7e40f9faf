"""A web server of pages in memory, with TLS or without: an index of packages, a mirror, a git repository."""

import http.server
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `pages`, to those with the right password where the server has one."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append((self.path, dict(self.headers)))
        if server.password and server.password not in self.headers.get("Authorization", ""):
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic realm=x")
            self.end_headers()
            return
        body = server.pages.get(self.path.split("?")[0])
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        kind = "application/json" if (body or b"").startswith(b"{") else "text/html"
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body or b"")

    do_POST = do_GET  # noqa: N815 - the library's name

    def log_message(self, *args: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """Serves from its beginning; `asked` are the paths and headers of the requests so far."""

    def __init__(self, address: str, pages: dict[str, bytes], password: str = "") -> None:
        super().__init__((address, 0), Handler)
        self.pages, self.password = pages, password
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.host = f"{address}:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


# --- TLS ---


def make_authority(folder: Path) -> Path:
    """The folder of a CA that nobody trusts yet."""
    _openssl(folder, "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem")
    return folder


def sign(authority: Path, address: str) -> ssl.SSLContext:
    """What a server at an IP address needs to be trusted by those who trust the CA."""
    _openssl(authority, f"req -newkey rsa:2048 -nodes -subj /CN={address} -keyout s.key -out s.csr")
    (authority / "ext").write_text(f"subjectAltName=IP:{address}\n")
    signed = "x509 -req -in s.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out s.pem -extfile ext"
    _openssl(authority, signed)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "s.pem", authority / "s.key")
    return context


def _openssl(folder: Path, words: str) -> None:
    subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)


# --- git ---


def repository(folder: Path, tags: dict[str, dict[str, str]], at: str) -> dict[str, bytes]:
    """The pages, below the path `at`, of a new git repository with a commit for each tag.

    tags: the files of each, in this order. https://git-scm.com/docs/git-update-server-info
    """
    folder.mkdir()
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(folder))
    for tag, files in tags.items():
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        for words in (("init", "-q"), ("add", "."), ("commit", "-qm", tag), ("tag", tag)):
            subprocess.run([*git, *words], check=True)
    subprocess.run([*git, "update-server-info"], check=True)
    inside = folder / ".git"
    return {f"{at}/{p.relative_to(inside)}": p.read_bytes() for p in inside.rglob("*") if p.is_file()}
