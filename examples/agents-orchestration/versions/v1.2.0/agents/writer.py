# v1.2.0: the writer has forgotten what it is for, and its test says so.
def answer(model):
    return ""
