"""Run as a program in a mount namespace of its own: a house on a disk that is too small, then on the same one, larger.

Prints one JSON document: how the runs on the small one ended, and what the accounting says after the one on the larger.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.processes.house import Running, Spawned, wait_for

from mendstream.demo.accounting import account
from mendstream.simulation.spawned import living


def main(place: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", place], check=True)
    root = Path(place) / "house"
    filled = _run(root)
    again = _run(root)  # nobody has made room
    subprocess.run(["mount", "-o", "remount,size=400m", place], check=True)
    with Running(root) as larger:
        larger.until(larger.serving)
        larger.drain()
    counted = account(root)
    document = {
        "root": str(root),
        "runs": [filled, again],
        "exact": counted.exact,
        "events": counted.events,
        "text": counted.text,
    }
    sys.stdout.write(json.dumps(document))


def _run(root: Path) -> dict[str, int | str]:
    """How `mendstream run` ends, and what it says."""
    with Spawned(root, ingestion__rate=20_000.0) as house:
        wait_for(lambda: house.note_family() and not house.runs, 90, why="the house ends")
        code, said = house.wait(1), house.rest()
        wait_for(lambda: not living(house.family), 5, why="no process is left")
    return {"code": code, "said": said}


if __name__ == "__main__":
    main(sys.argv[1])
