"""Run as a program in a mount namespace of its own: a house on a disk that is too small, then on the same one, larger.

Prints one JSON document: how the first run ended, and what the accounting says after the second.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.processes.house import Running, Spawned, living, wait_for

from mendstream.demo.accounting import account


def main(place: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", place], check=True)
    root = Path(place) / "house"
    with Spawned(root, ingestion__rate=20_000.0) as house:
        family = house.open().note_family()
        code = house.wait(90)
        said = house.rest()
        wait_for(lambda: not living(family), 5, why="no process is left")
    subprocess.run(["mount", "-o", "remount,size=400m", place], check=True)
    with Running(root) as larger:
        larger.until(larger.serving)
        larger.drain()
    counted = account(root)
    document = {"code": code, "said": said, "exact": counted.exact, "events": counted.events, "text": counted.text}
    sys.stdout.write(json.dumps(document))


if __name__ == "__main__":
    main(sys.argv[1])
