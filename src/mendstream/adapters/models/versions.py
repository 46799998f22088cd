"""The rules of a catalogue, whatever holds its files: what a version is, and when one is refused."""

from __future__ import annotations

import hashlib
import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping

import msgspec

from mendstream.contracts.errors import ModelError
from mendstream.contracts.models import FeatureReference, ModelCard

MODEL_FILE = "model.onnx"
CARD_FILE = "card.json"
_VERSION = re.compile(r"v[1-9][0-9]{0,8}")


class Versions(ABC):
    """`contracts.models.Catalogue`, less the place that holds the files. `card()` never touches that place."""

    def __init__(self) -> None:
        self._cards: dict[str, ModelCard] = {}

    # --- the place ---------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def where(self) -> str:
        """The place, for messages."""

    @abstractmethod
    def _names(self) -> Iterable[str]:
        """What is there: versions, and maybe other things."""

    @abstractmethod
    def _holds(self, version: str) -> bool: ...

    @abstractmethod
    def _read(self, version: str, name: str) -> bytes:
        """One file of a version; raises OSError if it cannot be read."""

    @abstractmethod
    def _put(self, version: str, files: Mapping[str, bytes]) -> None:
        """All files of a version, or nothing: also if the process dies. One that is there already stays.

        Raises OSError.
        """

    # --- the rules ---------------------------------------------------------------------------------------------------

    def versions(self) -> tuple[str, ...]:
        """The versions that are there, oldest first."""
        return tuple(sorted(filter(_VERSION.fullmatch, self._names()), key=_number))

    def next_version(self) -> str:
        versions = self.versions()
        return f"v{_number(versions[-1]) + 1 if versions else 1}"

    def card(self, version: str) -> ModelCard | None:
        """The card, if it was fetched or added before."""
        return self._cards.get(version)

    def fetch(self, version: str) -> ModelCard:
        """The card, from its file the first time; raises ModelError."""
        held = self._cards.get(version)
        if held is None:
            held = self._cards[version] = self._read_card(version)
        return held

    def model(self, version: str, digest: str) -> bytes:
        """The ONNX file, checked against `digest` (SHA-256, hexadecimal); raises ModelError."""
        onnx = self._content(version, MODEL_FILE, "the model file")
        return checked(onnx, digest, self._place(version, MODEL_FILE), self._hint())

    def note(self, version: str, name: str) -> bytes | None:
        """A small file that was added beside the model, or None."""
        self._named(version)
        try:
            return self._read(version, name)
        except FileNotFoundError:
            return None

    def add(self, onnx: bytes, card: ModelCard, notes: Mapping[str, bytes] | None = None) -> ModelCard:
        """Put a version in place, all of it or nothing; returns its card with the digest.

        The same content under the same version is accepted again, any other is refused with ModelError.
        """
        self._named(card.version)
        if not onnx:
            raise ModelError(f"the model for {card.version} is empty", hint="give an ONNX file with content")
        card = msgspec.structs.replace(card, digest=hashlib.sha256(onnx).hexdigest())
        _check(card, card.version, self._place(card.version, CARD_FILE))
        if not self._holds(card.version):
            self._move_in(card.version, {**(notes or {}), MODEL_FILE: onnx, CARD_FILE: card_json(card)})
        held = self.fetch(card.version)
        if _meant(held) != _meant(card):
            raise ModelError(
                f"{self._place(card.version)} already holds another model "
                f"(SHA-256 {held.digest[:16]}..., new is {card.digest[:16]}...)",
                hint=f"versions never change: add it as {self.next_version()}",
            )
        return held

    def _move_in(self, version: str, files: Mapping[str, bytes]) -> None:
        try:
            self._put(version, files)
        except OSError as error:
            raise ModelError(
                f"cannot write model {version} to {self.where}: {error.strerror}",
                hint="is the disk full, or the directory read-only?",
            ) from error

    def _read_card(self, version: str) -> ModelCard:
        text = self._content(version, CARD_FILE, f"the card of model {version}")
        place = self._place(version, CARD_FILE)
        try:
            card = msgspec.json.decode(text, type=ModelCard)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ModelError(
                f"{place} is no model card: {error}", hint="put the right one back, or promote another version"
            ) from error
        _check(card, version, place)
        return card

    def _content(self, version: str, name: str, what: str) -> bytes:
        self._named(version)
        return content_of(lambda: self._read(version, name), what, self._place(version, name), self._hint())

    def _named(self, version: str) -> None:
        # Versions come in with records: one that is no plain name must not lead out of the place.
        if not _VERSION.fullmatch(version):
            raise ModelError(f"{version!r} is no model version", hint=f"versions are v1, v2, ...; {self._hint()}")

    def _place(self, *parts: str) -> str:
        return "/".join((self.where, *parts))

    def _hint(self) -> str:
        there = ", ".join(self.versions()) or "none"
        return f"versions in {self.where}: {there}"


def checked(onnx: bytes, digest: str, place: str, hint: str) -> bytes:
    """The same file, if `digest` is its SHA-256; raises ModelError."""
    found = hashlib.sha256(onnx).hexdigest()
    if found != digest:
        raise ModelError(
            f"model file {place} has SHA-256 {found[:16]}..., wanted is {digest[:16] or 'none'}...",
            hint=f"it was changed or cut after it was registered: put the right one back, or promote another; {hint}",
        )
    return onnx


def content_of(read: Callable[[], bytes], what: str, place: str, hint: str) -> bytes:
    """What `read` gives; raises ModelError if that is nothing."""
    try:
        content = read()
    except OSError as error:
        raise ModelError(f"{what} cannot be read: {place}: {error.strerror}", hint=hint) from error
    if not content:
        raise ModelError(f"{what} is empty: {place}", hint=f"put the right one back; {hint}")
    return content


def card_json(card: ModelCard) -> bytes:
    """As it stands in its file."""
    return msgspec.json.format(msgspec.json.encode(card), indent=1)


def _number(version: str) -> int:
    return int(version[1:])


def _meant(card: ModelCard) -> ModelCard:
    """What must not change under a version: everything but when it was written and whether MLflow knows it."""
    return msgspec.structs.replace(card, created_at_us=0, run_id="")


def _check(card: ModelCard, version: str, place: str) -> None:
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
