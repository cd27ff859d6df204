"""A collector: takes traces by OTLP over HTTP and gRPC, with the messages that OpenTelemetry publishes for Python.

Prints its two ports as one line of JSON, and then a line for each span that arrives. The first line of standard input says
how to answer: `ok`, `fail`, or `hold`: the batches that arrive are said to be held, and answered only after another line.

    collector.py [CERTIFICATE KEY]
"""

import json
import ssl
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services

printing = threading.Lock()
released = threading.Event()
mode = sys.stdin.readline().strip()


def say(what):
    with printing:
        print(json.dumps(what), flush=True)


def plain(value):
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


def attributes(given):
    return {one.key: plain(one.value) for one in given}


def take(request, protocol, headers):
    """Says what arrived. Returns whether it is taken."""
    spans = [
        {
            "protocol": protocol,
            "headers": headers,
            "resource": attributes(resource.resource.attributes),
            "scope": scope.scope.name,
            "name": span.name,
            "kind": span.kind,
            "trace": span.trace_id.hex(),
            "span": span.span_id.hex(),
            "parent": span.parent_span_id.hex(),
            "state": span.trace_state,
            "nanoseconds": span.end_time_unix_nano - span.start_time_unix_nano,
            "begun": span.start_time_unix_nano,
            "links": [[link.trace_id.hex(), link.span_id.hex()] for link in span.links],
            "attributes": attributes(span.attributes),
            "status": span.status.code,
        }
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    if mode == "hold":
        say({"held": len(spans)})
        released.wait()
    if mode != "fail":
        for span in spans:
            say(span)
    return mode != "fail"


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.headers["content-type"] == "application/x-protobuf", self.headers
        request = messages.ExportTraceServiceRequest.FromString(body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        taken = self.path == "/v1/traces" and take(request, "http", headers)
        answer = messages.ExportTraceServiceResponse().SerializeToString()
        self.send_response(200 if taken else 400)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Grpc(services.TraceServiceServicer):
    def Export(self, request, context):
        if not take(request, "grpc", dict(context.invocation_metadata())):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not taken")
        return messages.ExportTraceServiceResponse()


http = ThreadingHTTPServer(("127.0.0.1", 0), Http)
grpc_server = grpc.server(futures.ThreadPoolExecutor())
services.add_TraceServiceServicer_to_server(Grpc(), grpc_server)
if sys.argv[1:]:
    certificate, key = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    http.socket = context.wrap_socket(http.socket, server_side=True)
    pair = (open(key, "rb").read(), open(certificate, "rb").read())
    port = grpc_server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
else:
    port = grpc_server.add_insecure_port("127.0.0.1:0")
grpc_server.start()
threading.Thread(target=http.serve_forever, daemon=True).start()
say({"http": http.server_port, "grpc": port})
# Ends with the test.
for _ in sys.stdin:
    released.set()
released.set()
