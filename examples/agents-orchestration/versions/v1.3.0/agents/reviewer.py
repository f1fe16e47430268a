def answer(model):
    return f"two remarks and a question, by {model}"
