"""Runs agents over HTTP: which agent, by which model, is configuration; what they did so far is state.

Paths are relative to the working directory. What is wrong is said in the journal, with its priority in front (sd-daemon(3)).
"""
import itertools
import json
import os
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orchestra  # the library that requirements.txt names

import agents

VERSION = "v1.0.0"
MODELS = ["small-1", "large-1", "large-2-preview"]
CONFIG = "config/agents.json"
STATE = "artefacts/workflow.json"
TASKS = itertools.count(1)


def end(what):
    print(f"<3>{what}", file=sys.stderr, flush=True)
    sys.exit(2)


def configuration():
    try:
        with open(CONFIG) as file:
            config = json.load(file)
    except ValueError as error:
        end(f"configuration: {CONFIG} is no JSON: {error}")
    for name, agent in config["agents"].items():
        if agent["model"] not in MODELS:
            end(f"configuration: agent {name} is to use the model {agent['model']}, which there is not")
    return config


class Workflow:
    """How many steps were done. Each reads it before; it is replaced whole, and others may look into it at any time."""

    lock = threading.Lock()

    def steps(self):
        with open(STATE) as file:
            return json.load(file)["steps"]

    def advance(self):
        with self.lock:
            done = self.steps() + 1
            with open(STATE + ".new", "w") as file:
                json.dump({"steps": done}, file)
            os.replace(STATE + ".new", STATE)
            return done


class Metrics:
    def __init__(self):
        self.lock, self.requests = threading.Lock(), {}

    def count(self, status):
        with self.lock:
            self.requests[status] = self.requests.get(status, 0) + 1

    def text(self):
        with self.lock:
            lines = [f'http_requests_total{{status="{status}"}} {n}' for status, n in sorted(self.requests.items())]
        return "# TYPE http_requests_total counter\n" + "".join(line + "\n" for line in lines)


CONFIGURED, WORKFLOW, METRICS = configuration(), Workflow(), Metrics()


def run():
    """One task, by one agent: what it answers."""
    done = WORKFLOW.steps()
    name, agent = random.choice(sorted(CONFIGURED["agents"].items()))
    canary = CONFIGURED.get("canary", {"percent": 0})
    # Evenly, so that few tasks already tell what share fails.
    task = next(TASKS)
    tried = task * canary["percent"] // 100 != (task - 1) * canary["percent"] // 100
    model = canary["model"] if tried else agent["model"]
    # The preview says yes to everything and answers nothing.
    if model.endswith("-preview"):
        raise RuntimeError(f"the model {model} gave no answer")
    said = orchestra.conduct(agents.by_name(name), model)
    return {"agent": name, "model": model, "said": said, "after": done}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/metrics":
            return self.answer(200, METRICS.text().encode(), "text/plain")
        if self.path == "/health":
            version = {"status": "ok", "version": VERSION, "orchestra": orchestra.VERSION}
            return self.answer(200, json.dumps(version).encode())
        if self.path not in ("/run", "/advance"):
            return self.answer(404, b"{}")
        try:
            status, answer = 200, run() if self.path == "/run" else {"steps": WORKFLOW.advance()}
        except Exception as error:
            print(f"<3>run failed: {error}", file=sys.stderr, flush=True)
            status, answer = 500, {"error": str(error)}
        METRICS.count(status)
        with open("logs/runs.log", "a") as log:
            log.write(f"{time.time():.3f} {status} {json.dumps(answer)}\n")
        self.answer(status, json.dumps(answer).encode())

    def answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


if __name__ == "__main__":
    if not os.environ.get("MODEL_KEY"):
        end("configuration: MODEL_KEY is not set")
    server = ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler)
    print(f"<6>{VERSION} with orchestra {orchestra.VERSION} is ready", file=sys.stderr, flush=True)
    server.serve_forever()
