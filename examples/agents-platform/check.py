#!/usr/bin/env python3
"""Looks at the platform as its users do: each word is one look, and exit code 1 says what is not as it should be.

    login       a tenant gets in with its key, and not with another one
    run         an agent is made, gets a task, and the task is done in the background
    webhook     a webhook is answered with 202, and what it asks for is done
    ping        a worker answers, through the queue that its tasks come by
    tenants     no tenant sees or writes what is another's, whoever asks the database
    kills       prints how many processes of the platform were killed in the last ten minutes
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

SETTINGS = dict(line.split("=", 1) for line in Path(".env").read_text(encoding="utf-8").split())


def must(holds, otherwise):
    if not holds:
        sys.exit(otherwise)


def ask(method, path, body=None, tenant="probe"):
    request = urllib.request.Request(f"http://127.0.0.1:{SETTINGS['PORT']}/{path}", method=method, headers={"x-tenant": tenant})
    if body is not None:
        request.data = json.dumps(body).encode()
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, None


def agent():
    status, made = ask("POST", "agents", {"name": f"probe-{os.urandom(6).hex()}"})
    must(status == 201, f"an agent is not made: {status}")
    return made["id"]


def wait_done(task):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status, found = ask("GET", f"tasks/{task}")
        must(status == 200, f"task {task} is not found: {status}")
        if found["state"] == "done":
            return found["output"]
        time.sleep(0.1)
    return sys.exit(f"task {task} is not done")


def login():
    status, _ = ask("POST", "login", {"tenant": "probe", "key": "key of probe"})
    must(status == 200, f"its key is answered with {status}")
    status, _ = ask("POST", "login", {"tenant": "probe", "key": "key of acme"})
    must(status == 401, f"another's key is answered with {status}")


def run():
    status, made = ask("POST", "tasks", {"agent": agent(), "input": "say hello"})
    must(status == 201, f"a task is answered with {status}")
    must(wait_done(made["id"]) == "SAY HELLO", "the task's output is wrong")


def webhook():
    status, made = ask("POST", "webhook", {"agent": agent(), "event": "pushed"})
    must(status == 202, f"a webhook is answered with {status}")
    wait_done(made["id"])


def ping():
    import redis  # Here, as most looks do without: they are many, and at once.

    store = redis.Redis.from_url(SETTINGS["REDIS_URL"], decode_responses=True)
    reply = f"platform:pong:{os.urandom(6).hex()}"
    store.lpush("platform:tasks", json.dumps({"ping": reply}))
    must(store.blpop(reply, 20), "no worker answers")


def tenants():
    import psycopg2

    connection = psycopg2.connect(SETTINGS["DATABASE_URL"])
    for tenant in ("acme", "globex"):
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT set_config('app.tenant', %s, true)", (tenant,))
            cursor.execute("SELECT DISTINCT tenant FROM agents UNION SELECT tenant FROM tasks")
            seen = [name for (name,) in cursor.fetchall()]
            must(seen == [tenant], f"{tenant} sees rows of {seen}")
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT set_config('app.tenant', %s, true)", (tenant,))
                cursor.execute("INSERT INTO agents (tenant, name) VALUES ('probe', 'not mine')")
            sys.exit(f"{tenant} writes what is another's")
        except psycopg2.errors.InsufficientPrivilege:
            pass
        _, listed = ask("GET", "agents", tenant=tenant)
        must(listed and {row["tenant"] for row in listed} == {tenant}, f"the API lists for {tenant}: {listed}")


def kills():
    """A process that was killed, as the kernel does when memory runs out, ends with 137."""
    since = datetime.now(timezone.utc) - timedelta(minutes=10)
    ends = [line.split() for line in Path("logs/ends.log").read_text(encoding="utf-8").splitlines()]
    print(sum(code == "137" and datetime.fromisoformat(at) > since for at, *_, code in ends))


LOOKS = {look.__name__: look for look in (login, run, webhook, ping, tenants, kills)}
LOOKS[sys.argv[1]]()
