"""What is shown of an agent: from the database, and kept in the cache until a task of it comes."""
import json


def key(agent):
    return f"agentic:page:{agent}"


def page(agent, cache, database):
    kept = cache.get(key(agent))
    if kept is not None:
        return shown(json.loads(kept))
    made = made_of(database.execute("SELECT id, title FROM tasks WHERE agent = %s ORDER BY id", (agent,)))
    cache.set(key(agent), json.dumps(made))
    return shown(made)


def made_of(rows):
    return [{"id": id, "title": title} for id, title in rows]


def shown(tasks):
    return {"tasks": len(tasks), "done": 0}
