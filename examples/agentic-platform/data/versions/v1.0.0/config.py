"""The settings in etcd: read at the start, and again whenever etcd says that one of them changed. Nothing is restarted for it."""
import base64
import json
import threading
import time
import urllib.request

PREFIX = b"config/"


def coded(key):
    return base64.b64encode(key).decode()


class Config:
    def __init__(self, url):
        self.url = url
        self.values = {}
        self.revision = self.read()
        threading.Thread(target=self.watch, daemon=True).start()

    def ask(self, path, body, timeout):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode())
        return urllib.request.urlopen(request, timeout=timeout)

    def read(self):
        """All settings as of one revision of etcd's, which is returned."""
        wanted = {"key": coded(PREFIX), "range_end": coded(PREFIX[:-1] + b"0")}
        with self.ask("/v3/kv/range", wanted, 10) as answer:
            found = json.load(answer)
        text = lambda value: base64.b64decode(value).decode()
        self.values = {text(pair["key"]): text(pair.get("value", "")) for pair in found.get("kvs", [])}
        return int(found["header"]["revision"])

    def watch(self):
        while True:
            try:
                wanted = {"key": coded(PREFIX), "range_end": coded(PREFIX[:-1] + b"0"), "start_revision": self.revision + 1}
                with self.ask("/v3/watch", {"create_request": wanted}, None) as told:
                    for line in told:
                        if json.loads(line).get("result", {}).get("events"):
                            self.revision = self.read()
            except (OSError, ValueError):
                time.sleep(0.5)  # etcd is away: asked again, from the revision that was read last

    def number(self, key, default):
        return int(self.values.get(key, default))
