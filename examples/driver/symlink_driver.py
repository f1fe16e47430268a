#!/usr/bin/env python3
"""A driver for releases behind a symbolic link: `current -> releases/v1`.

Settings: `link`, the symbolic link, and `releases`, the directory that holds one directory per release. The protocol is described in
docs/driver-protocol.md.
"""

import json
import os
import socket
import sys


def present(settings):
    """The release that the link leads to; None when there is no link."""
    try:
        target = os.readlink(settings["link"])
    except FileNotFoundError:
        return None
    return os.path.basename(target)


def release(settings, revision):
    return os.path.join(settings["releases"], revision)


def missing(settings, revision):
    """Why a revision cannot be had; None when it can."""
    if revision is None or os.path.basename(revision) != revision or revision in ("", ".", ".."):
        return f"{revision!r} is no release"
    if not os.path.isdir(release(settings, revision)):
        return f"{release(settings, revision)} is not there"
    return None


def describe(_request):
    return {"kind": "symlink", "version": [1, 0], "observe": "exactly", "held": "system", "redo": "safe"}


def survey(request):
    settings = request["settings"]
    available = []
    for wanted in request["wanted"]:
        why = missing(settings, wanted["revision"])
        here = {"here": f"release directory {release(settings, wanted['revision'])}"} if why is None else {"missing": why}
        available.append(here)
    # The directory's real path: two links that lead to it are still two places, two names of one link are not.
    directory = os.path.realpath(os.path.dirname(settings["link"]) or ".")
    target = f"link:{socket.gethostname()}:{os.path.join(directory, os.path.basename(settings['link']))}"
    return {"seen": {"at": present(settings)}, "target": target, "available": available}


def holds(request):
    settings, step, before = request["settings"], request["step"], request.get("before")
    now = present(settings)
    if step["action"] != "restore":
        return {"holds": {"cannot-tell": f"there is no step `{step['action']}`"}}
    if now == step["revision"]:
        return {"holds": "target", "mark": now}
    if before is None or before["mark"] == now:
        return {"holds": "origin", "mark": now}
    return {"holds": {"neither": f"at {now}"}, "mark": now}


def point_at(settings, revision):
    """Moves the link in one step: whoever looks sees the old release or the new one, never none."""
    link = settings["link"]
    directory = os.path.dirname(link) or "."
    beside = f"{link}.ripcord-{os.getpid()}"
    os.symlink(os.path.relpath(release(settings, revision), directory), beside)
    os.rename(beside, link)
    # The name is on disk when its directory is.
    handle = os.open(directory, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def apply(request):
    settings, step = request["settings"], request["step"]
    if step["action"] == "capture":
        now = present(settings)
        why = missing(settings, now)
        if why is not None:
            return {"outcome": {"failed": {"what": f"the present cannot be had again: {why}"}}}
        return {"outcome": {"done": {"found": f"kept as {release(settings, now)}", "captured": {"revision": now, "name": now}}}}
    if step["action"] not in ("prove", "restore"):
        return {"outcome": {"failed": {"what": f"there is no step `{step['action']}`"}}}
    why = missing(settings, step["revision"])
    if why is not None:
        return {"outcome": {"failed": {"what": why, "advice": "choose a release that is still there"}}}
    if step["action"] == "restore":
        point_at(settings, step["revision"])
    return {"outcome": {"done": {"found": f"{settings['link']} -> {release(settings, step['revision'])}"}}}


def main():
    request = json.load(sys.stdin)
    calls = {"describe": describe, "survey": survey, "holds": holds, "apply": apply}
    if request["ripcord"] != 1 or request["call"] not in calls:
        sys.exit(f"not understood: version {request['ripcord']}, call {request['call']}")
    json.dump({"ripcord": 1, **calls[request["call"]](request)}, sys.stdout)


if __name__ == "__main__":
    main()
