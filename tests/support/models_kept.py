"""Where models are learnt and kept, for real and simulated: what the contract suites of both run on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from mendstream.adapters.models import catalogue as on_disk
from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.onnx import LoadedModels
from mendstream.adapters.models.training import SklearnLearner
from mendstream.simulation.models import ModelShelf, SimCatalogue, SimLearner, SimModels


class Death(BaseException):
    """Of a process."""


class OnDisk:
    """A directory, ONNX files, scikit-learn."""

    def __init__(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "models"
        self.learner = SklearnLearner()

    def catalogue(self) -> Catalogue:
        """As one process has it."""
        return Catalogue(self.directory)

    def models(self, catalogue: Catalogue, kept: int = 4) -> LoadedModels:
        return LoadedModels(catalogue, kept)

    def read(self, version: str, name: str) -> bytes:
        return (self.directory / version / name).read_bytes()

    def write(self, version: str, name: str, content: bytes) -> None:
        (self.directory / version / name).write_bytes(content)

    def lose(self, version: str, name: str) -> None:
        (self.directory / version / name).unlink()

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        def write(place: Path, content: bytes) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with mock.patch.object(on_disk, "_write", write):
            yield

    @contextlib.contextmanager
    def deadly(self, point: str) -> Iterator[None]:
        """A process that adds a version dies before it is moved in (`adding`), or after (`added`)."""
        sync: Any = on_disk._sync_directory

        def die(place: Path) -> None:
            sync(place)
            if (place == self.directory) == (point == "added"):
                raise Death

        with mock.patch.object(on_disk, "_sync_directory", die):
            yield


class Simulated:
    """A shelf in memory, a straight line for a model."""

    def __init__(self, tmp_path: Path) -> None:
        self._deadly = ""
        self.shelf = ModelShelf(self._at)
        self.learner = SimLearner()

    def catalogue(self) -> SimCatalogue:
        """As one process has it."""
        return SimCatalogue(self.shelf)

    def models(self, catalogue: SimCatalogue, kept: int = 4) -> SimModels:
        return SimModels(catalogue, lambda rows, version: rows * 1e-6, kept)

    def read(self, version: str, name: str) -> bytes:
        return self.shelf.files[version][name]

    def write(self, version: str, name: str, content: bytes) -> None:
        self.shelf.files[version][name] = content

    def lose(self, version: str, name: str) -> None:
        self.shelf.lose(version, name)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        self.shelf.full = True
        yield
        self.shelf.full = False

    @contextlib.contextmanager
    def deadly(self, point: str) -> Iterator[None]:
        self._deadly = point
        yield
        self._deadly = ""

    def _at(self, point: str) -> None:
        if point == self._deadly:
            raise Death


WORLDS = [OnDisk, Simulated]
