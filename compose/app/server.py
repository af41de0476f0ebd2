"""The labs' web app: says HI, and who says so.

GET /          HI
GET /whoami    one JSON line: container, node, addresses, client
GET /bytes/N   N bytes, for looking at packet sizes
"""

import json
import os
import socket
import subprocess
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 3000
MOST_BYTES = 100_000_000


def addresses() -> list[str]:
    """List this container's IPv4 addresses, without loopback."""
    argv = ["ip", "-j", "-4", "address", "show"]
    links = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    found = [info["local"] for link in links for info in link["addr_info"]]
    return [address for address in found if not address.startswith("127.")]


class Handler(BaseHTTPRequestHandler):
    """Answers one connection; HTTP/1.1 keeps it open, as real clients do."""

    protocol_version = "HTTP/1.1"
    identity: dict[str, object]

    def do_GET(self) -> None:
        """Answer a request by its path."""
        if self.path == "/":
            self.answer(b"HI\n", "text/plain")
        elif self.path == "/whoami":
            seen = {**self.identity, "client": self.client_address[0]}
            self.answer(json.dumps(seen).encode() + b"\n", "application/json")
        elif self.path.startswith("/bytes/"):
            size = self.path.removeprefix("/bytes/")
            if size.isdigit() and int(size) <= MOST_BYTES:
                self.answer(b"x" * int(size), "application/octet-stream")
            else:
                self.send_error(HTTPStatus.BAD_REQUEST, f"want /bytes/0 to /bytes/{MOST_BYTES}")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def answer(self, body: bytes, kind: str) -> None:
        """Send a body that is known in full."""
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """Takes a burst of connections without refusing any."""

    request_queue_size = 128
    daemon_threads = True


if __name__ == "__main__":
    Handler.identity = {
        "container": socket.gethostname(),
        "node": os.environ.get("NODE"),
        "addresses": addresses(),
    }
    Server(("0.0.0.0", PORT), Handler).serve_forever()
