"""Takes tasks from the queue. One that it has taken is kept in a list of its own until it is done, so that none is lost with it."""

import json
import logging
import time

import psycopg2
import redis

from . import VERSION, settings, tasks
from .store import QUEUE, TAKEN, Store

log = logging.getLogger("worker")


def handle(store, entry):
    if "ping" in entry:
        store.redis.lpush(entry["ping"], VERSION)
        store.redis.expire(entry["ping"], 60)
        return
    with store.as_tenant(entry["tenant"]) as cursor:
        if not tasks.work(cursor, entry["task"]):
            log.warning("task %s of %s is not there", entry["task"], entry["tenant"])


def main():
    found = settings.load()
    store = Store(found)
    # A queue for each kind of worker; nothing puts tasks there yet, which this forgets.
    queue = found.get("WORKER_QUEUE", QUEUE)
    # What another worker had taken and not done.
    while store.redis.lmove(TAKEN, queue, "LEFT", "RIGHT"):
        pass
    log.info("worker %s takes tasks", VERSION)
    while True:
        try:
            entry = store.redis.blmove(queue, TAKEN, 1, "RIGHT", "LEFT")
            if entry is not None:
                handle(store, json.loads(entry))
                store.redis.lrem(TAKEN, 1, entry)
        except (psycopg2.OperationalError, psycopg2.InterfaceError, redis.ConnectionError) as error:
            log.error("it goes on in a second: %s", error)
            time.sleep(1)
            while store.redis.lmove(TAKEN, queue, "LEFT", "RIGHT"):
                pass


if __name__ == "__main__":
    main()
