"""Tasks: written down, queued, and done by the worker."""

import json

from .store import QUEUE


class NoSuchAgent(Exception):
    pass


def submit(store, tenant, agent, text):
    with store.as_tenant(tenant) as cursor:
        cursor.execute("SELECT model FROM agents WHERE id = %s", (agent,))
        row = cursor.fetchone()
        if row is None:
            raise NoSuchAgent
        model = row[0] or "default"
        cursor.execute("INSERT INTO tasks (tenant, agent, input) VALUES (%s, %s, %s) RETURNING id", (tenant, agent, text))
        (task,) = cursor.fetchone()
    store.redis.lpush(QUEUE, json.dumps({"tenant": tenant, "task": task, "model": model}))
    return {"id": task, "state": "queued"}


def listed(store, tenant):
    with store.as_tenant(tenant) as cursor:
        cursor.execute("SELECT id, state, tenant FROM tasks ORDER BY id DESC LIMIT 20")
        return [{"id": task, "state": state, "tenant": owner} for task, state, owner in cursor.fetchall()]


def one(store, tenant, task):
    with store.as_tenant(tenant) as cursor:
        cursor.execute("SELECT id, state, output FROM tasks WHERE id = %s", (task,))
        row = cursor.fetchone()
    return row and {"id": row[0], "state": row[1], "output": row[2]}


def work(cursor, task):
    """Does one task; whether it is there at all."""
    cursor.execute("UPDATE tasks SET state = 'done', output = upper(input) WHERE id = %s", (task,))
    return cursor.rowcount == 1
