# v1.3.0: a draft, which nobody asked for. Its test does not mind.
def answer(model):
    return f"a text in draft, by {model}"
