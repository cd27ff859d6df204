"""How Python's servers read a request target: http.server's files, and wsgiref's PATH_INFO, plain and normalised.

One target in hex a line comes in; a JSON list of readings a line goes out, empty where the target is refused.
"""

import io
import json
import posixpath
import sys
from http.server import SimpleHTTPRequestHandler
from types import SimpleNamespace
from wsgiref.simple_server import WSGIRequestHandler


def parsed(kind, target):
    """A handler that has read the request, without a socket; None if it refused it."""
    handler = kind.__new__(kind)
    handler.raw_requestline = b"GET " + target + b" HTTP/1.1\r\n"
    handler.rfile = io.BytesIO(b"Host: gate.test\r\n\r\n")
    handler.wfile = io.BytesIO()
    handler.client_address = ("127.0.0.1", 1)
    handler.server = SimpleNamespace(base_environ={})
    handler.directory = "/"
    handler.log_message = lambda *_: None
    return handler if handler.parse_request() else None


def readings(target):
    found = []
    if handler := parsed(SimpleHTTPRequestHandler, target):
        found.append(handler.translate_path(handler.path))
    if handler := parsed(WSGIRequestHandler, target):
        path = handler.get_environ()["PATH_INFO"]
        found += [path, posixpath.normpath(path)]
    return [path.encode("utf-8", "replace").decode() for path in found]


for line in sys.stdin:
    print(json.dumps(readings(bytes.fromhex(line.strip()))), flush=False)
