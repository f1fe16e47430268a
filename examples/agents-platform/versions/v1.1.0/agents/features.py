"""What can be switched off: for each path below an agent, its flag and what answers."""


def summary(store, tenant, agent):
    """What an agent has done, in a sentence by the model."""
    with store.as_tenant(tenant) as cursor:
        cursor.execute("SELECT output FROM tasks WHERE agent = %s AND state = 'done' ORDER BY id DESC LIMIT 5", (agent,))
        done = [output for (output,) in cursor.fetchall()]
    # The model takes a prompt of 10 characters.
    prompt = "Summarize: " + "; ".join(done)
    if len(prompt) > 10:
        raise ValueError("the model: 400 prompt too long")
    return 200, {"summary": prompt}


ROUTES = {"summary": ("summaries", summary)}
