"""Passes each request on to the server of URL, and tells it in X-Forwarded-For who has asked."""

import http.client
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PORT = 3000
SECONDS = 10.0


class Handler(BaseHTTPRequestHandler):
    """One connection from a client, for one request."""

    def do_GET(self) -> None:
        """Ask the server for the same path, and give its answer back."""
        server = http.client.HTTPConnection(self.server_name, timeout=SECONDS)
        try:
            server.request("GET", self.path, headers={"X-Forwarded-For": self.client_address[0]})
            answer = server.getresponse()
            body = answer.read()
        except OSError as problem:
            self.send_error(502, explain=str(problem))
            return
        finally:
            server.close()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    server_name = urlsplit(sys.argv[1]).netloc if len(sys.argv) > 1 else ""


ThreadingHTTPServer(("0.0.0.0", PORT), Handler).serve_forever()
