"""The agents of a tenant, with a cache of their list."""

import json

AGENTS = "platform:cache:agents:"


def create(store, tenant, name):
    with store.as_tenant(tenant) as cursor:
        cursor.execute("INSERT INTO agents (tenant, name) VALUES (%s, %s) RETURNING id", (tenant, name))
        (agent,) = cursor.fetchone()
    store.redis.delete(AGENTS + tenant)
    return {"id": agent, "name": name, "tenant": tenant}


def listed(store, tenant):
    cached = store.redis.get(AGENTS + tenant)
    if cached is None:
        with store.as_tenant(tenant) as cursor:
            cursor.execute("SELECT id, name, tenant FROM agents ORDER BY id DESC LIMIT 20")
            rows = cursor.fetchall()
        cached = json.dumps([{"id": agent, "name": name, "tenant": owner} for agent, name, owner in rows])
        store.redis.set(AGENTS + tenant, cached, ex=30)
    agents = json.loads(cached)
    return [{"id": agent["id"], "name": agent["name"], "tenant": agent["tenant"]} for agent in agents]
