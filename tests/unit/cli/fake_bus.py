"""A bus in memory: streams of blocks, and doors to look in and to interfere."""

from collections.abc import Callable

from mendstream.contracts.ports import Block, Out
from mendstream.contracts.records import Record, decode_block, encode_block
from mendstream.contracts.topics import SPECS, Codec, Stream, Topic


class FakeBell:
    def __init__(self, wait: Callable[[], None]) -> None:
        self._wait = wait

    def wait(self, timeout_s: float) -> bool:
        self._wait()
        return True

    def ring(self) -> None: ...
    def close(self) -> None: ...


class FakeBus:
    """The part of contracts.ports.Bus that verbs use. Blocks stand as they were published."""

    incarnation = "abc123"
    now = 0

    def now_us(self) -> int:
        return self.now

    def __init__(self) -> None:
        self.blocks: dict[Stream, list[Block]] = {}
        self.opened: list[tuple[str, bool]] = []
        self.before_publish: Callable[[FakeBus], None] | None = None
        self.on_wait: Callable[[], None] = lambda: None
        self.at_us = 1_700_000_000_000_000

    # --- what verbs call ---------------------------------------------------------------------------------------------

    def bounds(self, stream: Stream) -> tuple[int, int]:
        blocks = self.blocks.get(stream, [])
        return (blocks[0].position, blocks[-1].next) if blocks else (0, 0)

    def read(self, stream: Stream, position: int, *, max_rows: int, max_bytes: int) -> list[Block]:
        found = []
        for block in self.blocks.get(stream, []):
            skip = max(0, position - block.position)
            if skip < block.rows:
                found.append(_cut(block, skip))
        return found

    def publish(self, outs: list[Out]) -> None:
        hook, self.before_publish = self.before_publish, None
        if hook:
            hook(self)
        for out in outs:
            self.append(out.stream, out.value, out.rows)

    def listen(self, name: str, streams: object) -> FakeBell:
        return FakeBell(self.on_wait)

    def close(self) -> None: ...

    # --- what tests call ---------------------------------------------------------------------------------------------

    def append(self, stream: Stream, value: bytes, rows: int) -> None:
        _, end = self.bounds(stream)
        self.blocks.setdefault(stream, []).append(Block(stream, end, rows, value, self.at_us))

    def put(self, topic: Topic, *records: Record, partition: int = 0) -> None:
        self.append(Stream(topic, partition), encode_block(records), len(records))

    def held(self, topic: Topic, partition: int = 0) -> list[Record]:
        blocks = self.blocks.get(Stream(topic, partition), [])
        return [record for block in blocks for record in decode_block(topic, bytes(block.value))]


def _cut(block: Block, skip: int) -> Block:
    if SPECS[block.stream.topic].codec is Codec.FRAME:
        return Block(block.stream, block.position + skip, block.rows - skip, block.value, block.at_us, skip)
    lines = bytes(block.value).split(b"\n")[skip : block.rows]
    return Block(block.stream, block.position + skip, block.rows - skip, b"\n".join(lines), block.at_us)
