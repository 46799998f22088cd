"""A directory of model versions, `DIR/v3/model.onnx` beside `DIR/v3/card.json`; digests are checked on the way out."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mendstream.adapters.models.versions import CARD_FILE, MODEL_FILE, Versions, card_json, checked, content_of
from mendstream.contracts.errors import ModelError
from mendstream.contracts.models import ModelCard

_TEMPORARY = ".new-"
_ABANDONED_S = 600.0


class Catalogue(Versions):
    """All versions that this house has on disk."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    @property
    def where(self) -> str:
        return str(self.directory)

    def path(self, version: str) -> Path:
        """The ONNX file of `version`, whether it is there or not."""
        self._named(version)
        return self.directory / version / MODEL_FILE

    def import_dir(self, source: Path) -> tuple[ModelCard, ...]:
        """Take over every version under `source` (the bundled ones); returns their cards, oldest first."""
        other = Catalogue(source)
        cards = [other.fetch(version) for version in other.versions()]
        return tuple(self.add(other.model(card.version, card.digest), card) for card in cards)

    def set_run(self, version: str, run_id: str) -> ModelCard:
        """Write down that `version` is known to MLflow as `run_id`."""
        card = msgspec.structs.replace(self.fetch(version), run_id=run_id)
        place = self.directory / version / CARD_FILE
        partial = place.with_suffix(".partial")
        try:
            _write(partial, card_json(card))
            partial.replace(place)
        except OSError as error:
            raise ModelError(f"cannot write {place}: {error.strerror}", hint="is the disk full?") from error
        self._cards[version] = card
        return card

    def _names(self) -> list[str]:
        try:
            return [entry.name for entry in self.directory.iterdir()]
        except FileNotFoundError:
            return []

    def _holds(self, version: str) -> bool:
        return (self.directory / version).exists()

    def _read(self, version: str, name: str) -> bytes:
        return (self.directory / version / name).read_bytes()

    def _put(self, version: str, files: Mapping[str, bytes]) -> None:
        final = self.directory / version
        self.directory.mkdir(parents=True, exist_ok=True)
        self._sweep()
        partial = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.directory))
        partial.chmod(0o755)
        for name, content in files.items():
            _write(partial / name, content)
        _sync_directory(partial)
        try:
            partial.rename(final)
        except OSError:
            if not final.exists():
                raise
            shutil.rmtree(partial)  # another process was first: `add` compares with what it put there
        _sync_directory(self.directory)

    def _sweep(self) -> None:
        """Remove what a process that was killed while it added left behind."""
        limit = time.time() - _ABANDONED_S
        for entry in self.directory.glob(f"{_TEMPORARY}*"):
            if entry.stat().st_mtime < limit:
                shutil.rmtree(entry, ignore_errors=True)


def read_model(place: Path, digest: str, hint: str) -> bytes:
    """The ONNX file at `place`, checked against `digest` (SHA-256, hexadecimal); raises ModelError."""
    return checked(content_of(place.read_bytes, "the model file", str(place), hint), digest, str(place), hint)


def _write(place: Path, content: bytes) -> None:
    with place.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(place: Path) -> None:
    """Make the names in it durable."""
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
