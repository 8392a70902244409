"""The node itself."""

import os
import subprocess

BIN = os.environ["ROOMCAST_BIN"]


def clean():
    """The environment without what is not named by a test."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("ROOMCAST_", "WEBSOCKET_", "REDIS_"))}


def says(*args):
    return subprocess.run([BIN, *args], check=True, capture_output=True, text=True, env=clean(), cwd="/").stdout
