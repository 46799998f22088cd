"""Standard input goes into the spool line by line, whole or not at all."""

import errno
import io

import pytest

from mendstream.runtime.spool import _append


class Full(io.FileIO):
    """A file on a disk with room for so many bytes more."""

    room = 0

    def write(self, data) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = super().write(bytes(data)[: self.room])
        self.room -= taken
        return taken


def test_a_line_for_which_there_is_no_room_leaves_nothing_of_itself(tmp_path):
    path = tmp_path / "spool"
    with Full(path, "ab") as file:
        file.room = 8
        _append(file, b"whole\n")
        with pytest.raises(OSError, match="No space"):
            _append(file, b"cut short\n")
    assert path.read_bytes() == b"whole\n"


def test_a_line_that_the_system_takes_in_pieces_arrives_whole(tmp_path):
    class Slow(io.FileIO):
        def write(self, data) -> int:
            return super().write(bytes(data)[:3])

    path = tmp_path / "spool"
    with Slow(path, "ab") as file:
        _append(file, b"a long line\n")
    assert path.read_bytes() == b"a long line\n"
