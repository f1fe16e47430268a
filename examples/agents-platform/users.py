#!/usr/bin/env python3
"""Two tenants' users: they list agents and make some, give them tasks, look at these and at summaries. `users.json` says how that went:
how many requests, how many of these failed or were not answered, and how many answers held what another tenant's is.

usage: users.py PORT
"""

import itertools
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

BASE = f"http://127.0.0.1:{sys.argv[1]}"
counts = Counter(requests=0, failed=0, unanswered=0, leaks=0)
lock = threading.Lock()


def ask(tenant, method, path, body=None):
    """The status and what was answered; nothing without an answer."""
    request = urllib.request.Request(f"{BASE}/{path}", method=method, headers={"x-tenant": tenant})
    if body is not None:
        request.data = json.dumps(body).encode()
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            status, said = answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        status, said = error.code, None
    except (OSError, ValueError):
        status, said = 0, None
    leaked = isinstance(said, list) and any(row["tenant"] != tenant for row in said)
    with lock:
        counts.update(requests=1, failed=status >= 500, unanswered=status == 0, leaks=leaked)
    return said


def use(tenant):
    agents = []
    for number in itertools.count():
        if number % 5 == 0 or not agents:
            ask(tenant, "POST", "agents", {"name": f"{tenant}-{number // 5}"})
        agents = ask(tenant, "GET", "agents") or agents
        if agents:
            agent = agents[number % len(agents)]["id"]
            ask(tenant, "POST", "tasks", {"agent": agent, "input": f"count to {number}"})
            ask(tenant, "GET", f"agents/{agent}/summary")
        ask(tenant, "GET", "tasks")
        time.sleep(0.4)


for name in ("acme", "globex"):
    threading.Thread(target=use, args=(name,), daemon=True).start()
while True:
    time.sleep(0.5)
    with lock:
        said = json.dumps(counts)
    Path("users.json.new").write_text(said, encoding="utf-8")
    Path("users.json.new").rename("users.json")
