def answer(model):
    return f"a text, by {model}"
