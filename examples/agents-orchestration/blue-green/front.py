"""The door: passes each request to the side that the link `live` leads to at that moment, and counts what is answered."""
import http.client
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORTS = {"blue": 8001, "green": 8002}
LOCK, ANSWERED = threading.Lock(), {}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/metrics":
            with LOCK:
                lines = [f'front_requests_total{{status="{status}"}} {n}\n' for status, n in sorted(ANSWERED.items())]
            return self.answer(200, ("# TYPE front_requests_total counter\n" + "".join(lines)).encode(), "text/plain")
        side = os.path.basename(os.readlink("live"))
        try:
            there = http.client.HTTPConnection("127.0.0.1", PORTS[side], timeout=5)
            there.request("GET", self.path)
            came = there.getresponse()
            status, body, kind = came.status, came.read(), came.getheader("Content-Type", "application/json")
        except (OSError, http.client.HTTPException) as error:
            status, body, kind = 502, str(error).encode(), "text/plain"
        if self.path != "/health":
            with LOCK:
                ANSWERED[status] = ANSWERED.get(status, 0) + 1
        self.answer(status, body, kind)

    def answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
