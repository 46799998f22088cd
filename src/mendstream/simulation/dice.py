"""Random streams, one a component: one more throw in one place changes nothing elsewhere."""

from __future__ import annotations

import hashlib
import random


class Dice:
    """`of(name)` is the same sequence for the same (seed, name), in any process and on any machine."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._streams: dict[str, random.Random] = {}

    def of(self, name: str) -> random.Random:
        held = self._streams.get(name)
        if held is None:
            digest = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=8).digest()
            held = self._streams[name] = random.Random(int.from_bytes(digest, "big"))
        return held
