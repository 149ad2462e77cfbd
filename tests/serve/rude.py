"""A server that keeps the rules of the API and misbehaves on order: what the tests of the clients talk to.

`server.faults` holds what is done to the next requests, one each: "drop_before" and "drop_after" (the connection is closed before or
after the request was heeded), "garbage" (heeded, and answered with no JSON), "partial" (heeded, and half an answer), ("slow", seconds),
or (status, code, headers). `server.seen` lists what came.
"""

import json
import socket
import threading
import time
from collections import deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Refusal(Exception):
    def __init__(self, status, code, headers=()):
        super().__init__(code)
        self.status, self.code, self.headers = status, code, dict(headers)


class Rude(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address=("127.0.0.1", 0)):
        self.faults, self.always, self.seen = deque(), None, []
        self.predictions, self.told, self.order, self.ready = {}, {}, [], True
        self.schema = {"kind": "classes", "shape": [3], "dtype": "float32", "classes": ["cat", "dog"]}
        self.lock = threading.Lock()
        super().__init__(address, Handler)

    def handle_error(self, request, client_address):
        """Connections are dropped on purpose here."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def bodies(self, path):
        return [body for _, at, body, _ in self.seen if at == path]

    def heed(self, method, path, body):
        if path == "/v1/predict":
            return self.whole(body, self.predict)
        if path == "/v1/feedback":
            items = body if isinstance(body, list) else [body]
            for item in items:
                self.check(item)
            return self.whole(body, self.take)
        if path == "/readyz":
            if not self.ready:
                raise Refusal(503, "not_ready")
            return {"ready": True}
        if path == "/v1/schema":
            return self.schema
        if method == "GET" and path == "/v1/status":
            return {"version": 1}
        if method == "GET":
            return [{"path": path}]
        return {"action": path.split("/")[-1], "body": body}

    def whole(self, body, work):
        return [work(item) for item in body] if isinstance(body, list) else work(body)

    def predict(self, item):
        kept = self.predictions.setdefault(item["id"], item["x"])
        if kept != item["x"]:
            raise Refusal(422, "conflict")
        return {"id": item["id"], "output": {"answer": "cat", "x": item["x"]}, "version": 1}

    def check(self, item):
        if item["id"].startswith("gone"):
            raise Refusal(410, "horizon_passed")
        if item.get("y") == "elephant":
            raise Refusal(422, "invalid_request")
        if self.told.get((item["id"], item["revision"]), item) != item:
            raise Refusal(422, "conflict")

    def take(self, item):
        key = (item["id"], item["revision"])
        known = key in self.told
        if not known:
            self.told[key] = item
            self.order.append(item["id"])
        return {"accepted": True, "duplicate": known, "joined": True, "seq": self.order.index(item["id"]) + 1}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *words):
        """Quiet."""

    def do_GET(self):
        server = self.server
        path = urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or "null")
        with server.lock:
            server.seen.append(
                (self.command, unquote(path.path), body if body is not None else path.query, dict(self.headers))
            )
            fault = server.faults.popleft() if server.faults else server.always
        if fault == "drop_before":
            return self.drop()
        if isinstance(fault, tuple) and fault[0] == "slow":
            time.sleep(fault[1])
        try:
            if isinstance(fault, tuple) and fault[0] != "slow":
                raise Refusal(*fault)
            with server.lock:
                answer, status, headers = server.heed(self.command, path.path, body), 200, {}
        except Refusal as refusal:
            status, headers = refusal.status, refusal.headers
            answer = {"status": status, "code": refusal.code, "detail": f"no: {refusal.code}", "errors": [{"at": "x"}]}
        text = json.dumps(answer).encode()
        if fault == "drop_after":
            return self.drop()
        if fault == "garbage":
            text = b"<html>welcome to the cafe</html>"
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if fault == "drip":
            for place in range(len(text)):
                self.wfile.write(text[place : place + 1])
                self.wfile.flush()
                time.sleep(0.05)
            return None
        self.wfile.write(text[: len(text) // 2] if fault == "partial" else text)
        return self.drop() if fault == "partial" else None

    do_POST = do_DELETE = do_GET

    def drop(self):
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(address=("127.0.0.1", 0)):
    with Rude(address) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]
