"""What `.env` says; without the keys it must have, nothing starts."""

import json
import logging
import os
import sys

REQUIRED = ("PORT", "DATABASE_URL", "REDIS_URL", "MODEL_API_KEY")


def load():
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    path = os.environ["ENV_FILE"]
    with open(path, encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    missing = [key for key in REQUIRED if not settings.get(key)]
    if missing:
        sys.exit(f"{path} lacks {', '.join(missing)}")
    logging.info("Environment loaded")
    return settings


def feature(name):
    """Whether it is on: the file is read each time, so that a flag has effect at once."""
    with open(os.environ["FLAGS_FILE"], encoding="utf-8") as file:
        return bool(json.load(file)["features"].get(name))
