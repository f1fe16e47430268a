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
        cursor.execute("INSERT INTO tasks (tenant, agent, prompt) VALUES (%s, %s, %s) RETURNING id", (tenant, agent, text))
        (task,) = cursor.fetchone()
    store.redis.lpush(QUEUE, json.dumps({"tenant": tenant, "task": task, "model": model}))
    return {"id": task, "state": "queued"}


def listed(store, tenant):
    with store.as_tenant(tenant) as cursor:
        cursor.execute(
            "SELECT id, state, tasks.tenant, cents FROM tasks LEFT JOIN task_costs ON task = id ORDER BY id DESC LIMIT 20"
        )
        # A figure of the database's is a Decimal, which JSON does not know. Nor does this.
        return [
            {"id": task, "state": state, "tenant": owner, "cents": cents}
            for task, state, owner, cents in cursor.fetchall()
        ]


def one(store, tenant, task):
    with store.as_tenant(tenant) as cursor:
        cursor.execute("SELECT id, state, output FROM tasks WHERE id = %s", (task,))
        row = cursor.fetchone()
    return row and {"id": row[0], "state": row[1], "output": row[2]}


def work(cursor, task):
    """Does one task; whether it is there at all."""
    cursor.execute("UPDATE tasks SET state = 'done', output = upper(prompt) WHERE id = %s RETURNING tenant, prompt", (task,))
    row = cursor.fetchone()
    if row is None:
        return False
    cursor.execute("INSERT INTO task_costs (task, tenant, cents) VALUES (%s, %s, %s)", (task, row[0], len(row[1]) / 100))
    return True
