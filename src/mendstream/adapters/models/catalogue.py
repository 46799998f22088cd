"""A directory of model versions, `DIR/v3/model.onnx` beside `DIR/v3/card.json`; digests are checked on the way out."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mendstream.contracts.errors import ModelError
from mendstream.contracts.models import FeatureReference, ModelCard

MODEL_FILE = "model.onnx"
CARD_FILE = "card.json"
_VERSION = re.compile(r"v[1-9][0-9]{0,8}")
_TEMPORARY = ".new-"
_ABANDONED_S = 600.0


class Catalogue:
    """All versions that this house has on disk. `card()` is the `Cards` port and never touches the disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._cards: dict[str, ModelCard] = {}

    def versions(self) -> tuple[str, ...]:
        """The versions on disk, oldest first."""
        try:
            names = [entry.name for entry in self.directory.iterdir() if _VERSION.fullmatch(entry.name)]
        except FileNotFoundError:
            return ()
        return tuple(sorted(names, key=_number))

    def next_version(self) -> str:
        versions = self.versions()
        return f"v{_number(versions[-1]) + 1 if versions else 1}"

    def card(self, version: str) -> ModelCard | None:
        """The card, if it was fetched or added before."""
        return self._cards.get(version)

    def fetch(self, version: str) -> ModelCard:
        """The card, from the disk the first time; raises ModelError."""
        held = self._cards.get(version)
        if held is None:
            held = self._cards[version] = self._read_card(version)
        return held

    def path(self, version: str) -> Path:
        """The ONNX file of `version`, whether it is there or not."""
        return self._place(version) / MODEL_FILE

    def model(self, version: str, digest: str) -> bytes:
        """The ONNX file, checked against `digest` (SHA-256, hexadecimal); raises ModelError."""
        return read_model(self.path(version), digest, self._hint())

    def note(self, version: str, name: str) -> bytes | None:
        """A small file that was added beside the model, or None."""
        try:
            return (self._place(version) / name).read_bytes()
        except FileNotFoundError:
            return None

    def add(self, onnx: bytes, card: ModelCard, notes: Mapping[str, bytes] | None = None) -> ModelCard:
        """Put a version in place, all of it or nothing; returns its card with the digest.

        The same content under the same version is accepted again, any other is refused with ModelError.
        """
        if not onnx:
            raise ModelError(f"the model for {card.version} is empty", hint="give an ONNX file with content")
        card = msgspec.structs.replace(card, digest=hashlib.sha256(onnx).hexdigest())
        final = self._place(card.version)
        _check(card, card.version, final / CARD_FILE)
        if not final.exists():
            self._move_in(onnx, card, notes or {}, final)
        held = self.fetch(card.version)
        if _content(held) != _content(card):
            raise ModelError(
                f"{final} already holds another model (SHA-256 {held.digest[:16]}..., new is {card.digest[:16]}...)",
                hint=f"versions never change: add it as {self.next_version()}",
            )
        return held

    def import_dir(self, source: Path) -> tuple[ModelCard, ...]:
        """Take over every version under `source` (the bundled ones); returns their cards, oldest first."""
        other = Catalogue(source)
        cards = [other.fetch(version) for version in other.versions()]
        return tuple(self.add(other.model(card.version, card.digest), card) for card in cards)

    def set_run(self, version: str, run_id: str) -> ModelCard:
        """Write down that `version` is known to MLflow as `run_id`."""
        card = msgspec.structs.replace(self.fetch(version), run_id=run_id)
        place = self._place(version) / CARD_FILE
        partial = place.with_suffix(".partial")
        _write(partial, _card_json(card))
        partial.replace(place)
        self._cards[version] = card
        return card

    def _place(self, version: str) -> Path:
        # Versions come in with records: one that is no plain name must not lead out of the directory.
        if not _VERSION.fullmatch(version):
            raise ModelError(f"{version!r} is no model version", hint=f"versions are v1, v2, ...; {self._hint()}")
        return self.directory / version

    def _hint(self) -> str:
        there = ", ".join(self.versions()) or "none"
        return f"versions in {self.directory}: {there}"

    def _read_card(self, version: str) -> ModelCard:
        place = self._place(version) / CARD_FILE
        text = _bytes(place, f"the card of model {version}", self._hint())
        try:
            card = msgspec.json.decode(text, type=ModelCard)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ModelError(
                f"{place} is no model card: {error}", hint="put the right one back, or promote another version"
            ) from error
        _check(card, version, place)
        return card

    def _move_in(self, onnx: bytes, card: ModelCard, notes: Mapping[str, bytes], final: Path) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._sweep()
            partial = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.directory))
            partial.chmod(0o755)
            for name, content in {**notes, MODEL_FILE: onnx, CARD_FILE: _card_json(card)}.items():
                _write(partial / name, content)
            _sync_directory(partial)
            try:
                partial.rename(final)
            except OSError:
                if not final.exists():
                    raise
                shutil.rmtree(partial)  # another process was first: `add` compares with what it put there
            _sync_directory(self.directory)
        except OSError as error:
            raise ModelError(
                f"cannot write model {card.version} to {self.directory}: {error.strerror}",
                hint="is the disk full, or the directory read-only?",
            ) from error

    def _sweep(self) -> None:
        """Remove what a process that was killed while it added left behind."""
        limit = time.time() - _ABANDONED_S
        for entry in self.directory.glob(f"{_TEMPORARY}*"):
            if entry.stat().st_mtime < limit:
                shutil.rmtree(entry, ignore_errors=True)


def read_model(place: Path, digest: str, hint: str) -> bytes:
    """The ONNX file at `place`, checked against `digest` (SHA-256, hexadecimal); raises ModelError."""
    onnx = _bytes(place, "the model file", hint)
    found = hashlib.sha256(onnx).hexdigest()
    if found != digest:
        raise ModelError(
            f"model file {place} has SHA-256 {found[:16]}..., wanted is {digest[:16] or 'none'}...",
            hint=f"it was changed or cut after it was registered: put the right one back, or promote another; {hint}",
        )
    return onnx


def _number(version: str) -> int:
    return int(version[1:])


def _content(card: ModelCard) -> ModelCard:
    """What must not change under a version: everything but when it was written and whether MLflow knows it."""
    return msgspec.structs.replace(card, created_at_us=0, run_id="")


def _card_json(card: ModelCard) -> bytes:
    return msgspec.json.format(msgspec.json.encode(card), indent=1)


def _check(card: ModelCard, version: str, place: Path) -> None:
    """Raises ModelError if the card contradicts itself."""
    wrong = ""
    if card.version != version:
        wrong = f"it says version {card.version!r}"
    elif not card.features or len(set(card.features)) != len(card.features):
        wrong = "its features are empty or repeat a name"
    elif not re.fullmatch(r"[0-9a-f]{64}", card.digest):
        wrong = "its digest is no SHA-256"
    else:
        named = [*card.reference.items(), *([("score", card.score_reference)] if card.score_reference else [])]
        for name, reference in named:
            if not _sound(reference):
                wrong = f"the reference of {name} needs rising edges and one count a bin"
                break
    if wrong:
        raise ModelError(f"{place}: {wrong}", hint="put the right card back, or promote another version")


def _sound(reference: FeatureReference) -> bool:
    edges = reference.edges
    return len(reference.counts) == len(edges) + 2 and all(a < b for a, b in itertools.pairwise(edges))


def _bytes(place: Path, what: str, hint: str) -> bytes:
    try:
        content = place.read_bytes()
    except OSError as error:
        raise ModelError(f"{what} cannot be read: {place}: {error.strerror}", hint=hint) from error
    if not content:
        raise ModelError(f"{what} is empty: {place}", hint=f"put the right one back; {hint}")
    return content


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
