"""What is shown of an agent: from the database, by priority, and kept in the cache until a task of it comes."""
import json


def key(agent):
    return f"agentic:page:{agent}"


def page(agent, cache, database):
    kept = cache.get(key(agent))
    if kept is not None:
        return shown(json.loads(kept))
    made = made_of(database.execute("SELECT id, title, result, priority FROM tasks WHERE agent = %s ORDER BY id", (agent,)))
    cache.set(key(agent), json.dumps(made))
    return shown(made)


def made_of(rows):
    tasks = {}
    for id, title, result, priority in rows:
        tasks.setdefault(priority, []).append({"id": id, "title": title, "result": result})
    return tasks


def shown(tasks):
    # What comes from the cache has its priorities as text: JSON knows no other keys. 0 is not found then.
    every = [task for priority in range(max(map(int, tasks), default=-1) + 1) for task in tasks[priority]]
    return {"tasks": len(every), "done": sum(task["result"] is not None for task in every)}
