"""hello: a web page that says which pod made it. GET /healthz, GET /headers and POST /echo serve tests.

On SIGTERM it goes on answering for DRAIN_SECONDS, closing each connection after its answer, because services go on
sending requests until the news of its end has reached every node.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(os.environ.get("PORT", "8000"))
DRAIN_SECONDS = float(os.environ.get("DRAIN_SECONDS", "2"))
WHO = os.environ.get("POD_NAME", socket.gethostname())
GREETING = os.environ.get("GREETING", "Hello from the cluster")

PAGE = f"""<!doctype html>
<title>hello</title>
<h1>{GREETING}</h1>
<p>This page was made by Python in pod <b>{WHO}</b>.</p>
"""


class Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    draining = False

    def do_GET(self):
        if self.path == "/healthz":
            self.answer("ok\n", "text/plain")
        elif self.path == "/headers":
            seen = {"pod": WHO, "caller": self.client_address[0].removeprefix("::ffff:"), "headers": dict(self.headers)}
            self.answer(json.dumps(seen) + "\n", "application/json")
        else:
            self.answer(PAGE, "text/html; charset=utf-8")

    def do_POST(self):
        length = int(self.headers.get("Content-Length", "0"))
        self.answer(self.rfile.read(length), "application/octet-stream")

    def answer(self, body, content_type):
        data = body if isinstance(body, bytes) else body.encode()
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Pod", WHO)
        if Hello.draining:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def has_ipv6():
    """Whether the pod has an address of IPv6 that others can reach."""
    with open("/proc/net/if_inet6", encoding="ascii") as lines:
        return any(line.split()[3] == "00" for line in lines)


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6 if has_ipv6() else socket.AF_INET
    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def main():
    server = Server(("", PORT), Hello)

    def drain():
        Hello.draining = True
        time.sleep(DRAIN_SECONDS)
        server.shutdown()

    def on_signal(*_):
        threading.Thread(target=drain, daemon=True).start()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    server.serve_forever(poll_interval=0.1)


main()
