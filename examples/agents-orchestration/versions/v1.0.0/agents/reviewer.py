def answer(model):
    return f"two remarks, by {model}"
