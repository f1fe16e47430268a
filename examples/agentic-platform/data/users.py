"""Users: pages of agents, one after another, until who started this is gone. users.json says how many were asked for, failed, and had no
answer at all.

use: users.py PORT
"""
import http.client
import json
import os
import sys
import time

counts = {"requests": 0, "failed": 0, "unanswered": 0}
parent = os.getppid()
while os.getppid() == parent:
    counts["requests"] += 1
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
        connection.request("GET", f"/agents/{counts['requests'] % 3 + 1}")
        if connection.getresponse().status != 200:
            counts["failed"] += 1
    except (OSError, http.client.HTTPException):
        counts["unanswered"] += 1
    finally:
        connection.close()
    with open("users.new", "w") as file:
        json.dump(counts, file)
    os.replace("users.new", "users.json")
    time.sleep(0.05)
