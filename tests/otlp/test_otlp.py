"""A node built with the feature `otlp` exports its spans; a collector of our own decodes them with OpenTelemetry's own protobuf."""

import gzip
import hashlib
import hmac
import base64
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

BIN = os.environ["ROOMCAST_BIN"]
ROOT = Path(__file__).resolve().parents[2]
SECRET = "a-secret-of-the-tests-with-more-than-32-bytes"
KEY = "an-api-key-of-the-tests-0123456789abcdef"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CLIENT, SERVER = 3, 2


def serve(respond):
    """An HTTP server on loopback; `respond(handler, body)` gives the answer's type and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            kind, answer = respond(self, body)
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


def jwt(claims):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    text = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}"
    mac = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


class Otlp(unittest.TestCase):
    def setUp(self):
        self.requests, self.calls = [], []
        collector, self.collector = serve(self.collect)
        backend, self.backend = serve(self.called)
        for server in (collector, backend):
            self.addCleanup(server.server_close)
            self.addCleanup(server.shutdown)

    def collect(self, handler, body):
        if handler.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        self.requests.append((handler.path, handler.headers, request))
        return "application/x-protobuf", ExportTraceServiceResponse().SerializeToString()

    def called(self, handler, body):
        self.calls.append((handler.headers.get("traceparent"), json.loads(body)))
        return "application/json", b"{}"

    def start(self, **more):
        folder = tempfile.TemporaryDirectory(prefix="roomcast-otlp-")
        self.addCleanup(folder.cleanup)
        log = open(Path(folder.name) / "log", "w+")
        self.addCleanup(log.close)
        env = {key: value for key, value in os.environ.items() if not key.startswith(("ROOMCAST_", "WEBSOCKET_", "REDIS_", "OTEL_"))}
        env |= {
            "ROOMCAST_SERVER__LISTEN": "127.0.0.1:0",
            "ROOMCAST_API__LISTEN": "127.0.0.1:0",
            "ROOMCAST_NODE__ID": "one",
            "ROOMCAST_CONTRACTS__FILES": json.dumps([str(ROOT / "tests/js/fixtures/hooked.toml")]),
            "ROOMCAST_AUTH__KEYS": f'[{{secret="{SECRET}"}}]',
            "ROOMCAST_API__KEYS": f'[{{name="tests",secret="{KEY}"}}]',
            "ROOMCAST_HOOKS__BACKEND__URL": self.backend,
            "ROOMCAST_HOOKS__BACKEND__SECRET": "a secret of the hook, long",
            "ROOMCAST_LOG__FORMAT": "json",
            "ROOMCAST_LOG__LEVEL": "info,roomcast::http=debug,roomcast::gateway=debug",
            **more,
        }
        process = subprocess.Popen([BIN, "serve"], env=env, cwd=folder.name, stdout=subprocess.PIPE, stderr=log, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(self.kill, process)
        said = json.loads(process.stdout.readline())
        return process, f"http://{said['server']}", f"http://{said['api']}", Path(log.name)

    def kill(self, process):
        if process.poll() is None:
            process.kill()
        process.wait()

    def publish(self, api, **headers):
        body = json.dumps({"contract": "hooked", "event": "done", "data": {"room": "a"}}).encode()
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json", **headers}
        with urllib.request.urlopen(urllib.request.Request(f"{api}/api/v1/events", body, headers), timeout=10) as answer:
            self.assertEqual(answer.status, 202)
            return answer.headers

    def connect(self, server):
        """A long-polling client that connects, which the hook is asked about."""
        url = f"{server}/socket.io/?EIO=4&transport=polling"
        with urllib.request.urlopen(url, timeout=10) as answer:
            sid = json.loads(answer.read()[1:])["sid"]
        token = jwt({"sub": "ada", "exp": int(time.time()) + 600})
        packet = f'40/hooked,{json.dumps({"token": token})}'.encode()

        def post(packet):
            urllib.request.urlopen(urllib.request.Request(f"{url}&sid={sid}", packet, {"content-type": "text/plain"}), timeout=10).close()

        post(packet)
        while True:
            with urllib.request.urlopen(f"{url}&sid={sid}", timeout=10) as answer:
                packets = answer.read().split(b"\x1e")
            if any(packet.startswith(b"40/hooked,") for packet in packets):
                return
            self.assertEqual(packets, [b"2"], "a ping, or what was asked for")
            post(b"3")

    def spans(self):
        found = {}
        for _, _, request in self.requests:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        found.setdefault(span.name, []).append(span)
        return found

    def test_publishes_join_their_trace_and_hooks_are_given_theirs(self):
        process, server, api, log = self.start(OTEL_EXPORTER_OTLP_ENDPOINT=self.collector)
        answer = self.publish(api, traceparent=f"00-{TRACE}-{PARENT}-01", **{"x-request-id": "from-the-shop-7"})
        self.assertEqual(answer["x-request-id"], "from-the-shop-7")
        self.connect(server)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(40), 0)

        path, headers, request = self.requests[0]
        self.assertEqual((path, headers["content-type"]), ("/v1/traces", "application/x-protobuf"))
        resource = {pair.key: pair.value.string_value for pair in request.resource_spans[0].resource.attributes}
        self.assertEqual((resource["service.name"], resource["service.instance.id"]), ("roomcast", "one"))
        spans = self.spans()

        [publish] = spans["publish"]
        [asked] = spans["publishEvents"]
        self.assertEqual((asked.trace_id.hex(), asked.parent_span_id.hex(), asked.kind), (TRACE, PARENT, SERVER))
        self.assertEqual((publish.trace_id.hex(), publish.parent_span_id), (TRACE, asked.span_id))
        attributes = {pair.key: pair.value for pair in asked.attributes}
        self.assertEqual(attributes["http.status"].int_value, 202)
        self.assertEqual({pair.key: pair.value.string_value for pair in publish.attributes}["event"], "done")

        told, event = self.calls[0]
        [call] = [span for span in spans["hook.call"] if span.span_id.hex() == told.split("-")[2]]
        self.assertEqual((told.split("-")[1], event["traceparent"], call.kind), (call.trace_id.hex(), told, CLIENT))
        self.assertEqual({pair.key: pair.value.string_value for pair in call.attributes}["hook"], "backend")
        self.assertEqual(sum(len(found) for found in spans.values()), len({span.span_id for found in spans.values() for span in found}))

        lines = [json.loads(line) for line in log.read_text().splitlines()]
        [answered] = [line for line in lines if line.get("message") == "an API request was answered"]
        [connected] = [line for line in lines if line.get("message") == "a client connected"]
        self.assertEqual(connected["socket.id"], event["data"]["socket"]["id"])
        self.assertEqual((answered["span"]["request_id"], answered["span"]["trace_id"]), ("from-the-shop-7", TRACE))

    def test_what_is_not_a_traceparent_or_an_id_begins_anew(self):
        process, _, api, _ = self.start(OTEL_EXPORTER_OTLP_ENDPOINT=self.collector)
        answer = self.publish(api, traceparent="00-rubbish", **{"x-request-id": "x" * 200})
        self.assertEqual(len(answer["x-request-id"]), 36)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(40), 0)
        [publish] = self.spans()["publish"]
        self.assertNotEqual(publish.trace_id.hex(), TRACE)

    def test_a_collector_that_is_away_holds_nothing_up(self):
        process, server, api, _ = self.start(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
        began = time.monotonic()
        self.publish(api)
        self.connect(server)
        self.assertLess(time.monotonic() - began, 5)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(40), 0)

    def test_without_a_collector_the_trace_context_is_still_passed_on(self):
        process, server, api, _ = self.start()
        self.publish(api)
        self.connect(server)
        self.assertRegex(self.calls[0][0], "^00-[0-9a-f]{32}-[0-9a-f]{16}-01$")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(40), 0)
        self.assertEqual(self.requests, [])


if __name__ == "__main__":
    unittest.main()
