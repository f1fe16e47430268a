"""The service that stands for those of the platform that read the database, the cache and the settings."""
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg
import redis

import pages
from config import Config
from release import SCHEMA, VERSION

config = Config(os.environ["ETCD_URL"])
cache = redis.Redis.from_url(os.environ["REDIS_URL"])
lock = threading.Lock()
counted = {}
in_use = 0


class Busy(Exception):
    """As many connections to the database as the settings allow are in use."""


class Connection:
    """One of at most `config/database/pool_size`."""

    def __enter__(self):
        global in_use
        with lock:
            if in_use >= config.number("config/database/pool_size", 5):
                raise Busy("no connection is left in the pool")
            in_use += 1
        try:
            self.connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, connect_timeout=5)
        except psycopg.Error:
            self.give_back()
            raise
        return self.connection

    def __exit__(self, *_):
        self.connection.close()
        self.give_back()

    def give_back(self):
        global in_use
        with lock:
            in_use -= 1


def health():
    with Connection() as database:
        one = lambda query: database.execute(query).fetchone()[0]
        return {
            "status": "ok",
            "version": VERSION,
            "schema": {"needs": SCHEMA, "has": one("SELECT version_num FROM alembic_version")},
            "agents": one("SELECT count(*) FROM agents"),
            "tasks": one("SELECT count(*) FROM tasks"),
            "cache": "PONG" if cache.ping() else "away",
            "planning": config.values.get("config/features/planning", "off"),
            "process": os.getpid(),
        }


def agent(number):
    with Connection() as database:
        return pages.page(number, cache, database)


def new_task(task):
    with Connection() as database:
        made = database.execute(
            "INSERT INTO tasks (agent, title) VALUES (%s, %s) RETURNING id", (task["agent"], task["title"])
        ).fetchone()[0]
    cache.delete(pages.key(task["agent"]))
    return {"id": made}


class Handler(BaseHTTPRequestHandler):
    def answer(self, status, body, kind="application/json"):
        body = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def call(self, act, *given):
        try:
            status, said = 200, act(*given)
        except Busy as why:
            status, said = 503, {"error": str(why)}
        except Exception as why:  # whatever it is, the caller is answered and the log says what it was
            status, said = 500, {"error": f"{type(why).__name__}: {why}"}
        if status != 200:
            print(self.command, self.path, status, said["error"], flush=True)
        if self.path != "/health":
            with lock:
                counted[status] = counted.get(status, 0) + 1
        self.answer(status, json.dumps(said))

    def do_GET(self):
        if self.path == "/metrics":
            with lock:
                lines = [f'http_requests_total{{status="{status}"}} {n}\n' for status, n in counted.items()]
            self.answer(200, "# TYPE http_requests_total counter\n" + "".join(lines), "text/plain; version=0.0.4")
        elif self.path == "/health":
            self.call(health)
        else:
            self.call(agent, int(self.path.rpartition("/")[2]))

    def do_POST(self):
        self.call(new_task, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
    server.daemon_threads = True
    print(time.strftime("%H:%M:%S"), VERSION, "serves", flush=True)
    server.serve_forever()
