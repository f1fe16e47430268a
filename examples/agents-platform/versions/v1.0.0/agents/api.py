"""The API. The tenant is in the header `X-Tenant`."""

import hashlib
import json
import logging
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from psycopg2.errors import UniqueViolation

from . import VERSION, directory, features, metrics, settings, tasks
from .store import QUEUE, Store

log = logging.getLogger("api")
TEXT = "text/plain; version=0.0.4"


def health(store):
    with store.as_tenant("") as cursor:
        cursor.execute("SELECT 1")
    store.redis.ping()
    return 200, {"status": "healthy", "version": VERSION}


def login(store, tenant, key):
    with store.as_tenant(tenant) as cursor:
        cursor.execute("SELECT key_sha256 FROM tenants WHERE name = %s", (tenant,))
        row = cursor.fetchone()
    if row and row[0] == hashlib.sha256(key.encode()).hexdigest():
        return 200, {"tenant": tenant}
    return 401, {"detail": "Not known"}


def answer(store, method, path, tenant, body):
    match (method, *path):
        case ("GET", "health"):
            return health(store)
        case ("GET", "metrics"):
            return 200, metrics.page(store.redis.llen(QUEUE))
        case ("POST", "login"):
            return login(store, body["tenant"], body["key"])
        case ("GET", "agents"):
            return 200, directory.listed(store, tenant)
        case ("POST", "agents"):
            return 201, directory.create(store, tenant, body["name"])
        case ("GET", "agents", agent, feature) if feature in features.ROUTES:
            flag, answers = features.ROUTES[feature]
            if settings.feature(flag):
                return answers(store, tenant, agent)
            return 404, {"detail": "Feature disabled"}
        case ("GET", "tasks"):
            return 200, tasks.listed(store, tenant)
        case ("GET", "tasks", task):
            found = tasks.one(store, tenant, task)
            return (200, found) if found else (404, {"detail": "No such task"})
        case ("POST", "tasks"):
            return 201, tasks.submit(store, tenant, body["agent"], body["input"])
        case ("POST", "webhook"):
            return 202, tasks.submit(store, tenant, body["agent"], body["event"])
    return 404, {"detail": "Not found"}


class Handler(BaseHTTPRequestHandler):
    store = None

    def handle_request(self):
        began = time.monotonic()
        path = urlsplit(self.path).path.strip("/").split("/")
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or "{}")
            status, said = answer(self.store, self.command, path, self.headers.get("x-tenant") or "", body)
            text = said if isinstance(said, str) else json.dumps(said)
        except UniqueViolation:
            status, text = 409, '{"detail": "There is one of that name"}'
        except tasks.NoSuchAgent:
            status, text = 404, '{"detail": "No such agent"}'
        except Exception as error:
            log.error("%s %s: %r", self.command, self.path, error)
            status, text = 500, '{"detail": "Internal error"}'
        # What looks at the platform is not a user of it.
        if path[0] not in ("metrics", "health"):
            metrics.request(path[2] if len(path) > 2 else path[0], status, time.monotonic() - began)
        self.send_response(status)
        self.send_header("content-type", "application/json" if text.startswith(("{", "[")) else TEXT)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = handle_request

    def log_message(self, text, *args):
        log.info(text, *args)


def main():
    found = settings.load()
    Handler.store = Store(found)
    server = ThreadingHTTPServer(("127.0.0.1", int(found["PORT"])), Handler)
    log.info("API %s listens", VERSION)
    server.serve_forever()


if __name__ == "__main__":
    main()
