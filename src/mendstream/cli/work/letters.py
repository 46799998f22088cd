"""Dead letters in; a list, one of them, or a second chance out."""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mendstream.cli.show import cell, document, note, pairs, table, when
from mendstream.cli.work.bus import opened, topic_records
from mendstream.contracts.errors import BadRecord, CouldNot, UsageError
from mendstream.contracts.frame import Frame
from mendstream.contracts.ports import Out
from mendstream.contracts.records import DeadLetter, decode
from mendstream.contracts.topics import SPECS, Codec, Stream, Topic, Wing, wing_of
from mendstream.settings import Settings

_POST_LINES = 1000
_NO_LINE = "its bytes are no line of text: `mendstream dead-letters show LETTER --bytes` gives them as they came"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which letters to replay."""

    names: tuple[str, ...]
    everything: bool
    reason: str | None
    stage: str | None
    again: bool


def list_letters(settings: Settings, reason: str | None, stage: str | None, count: int, *, as_json: bool) -> int:
    done = _replayed(settings)
    found = _matching(_all(settings), reason, stage)[-count:]
    if as_json:
        document([_facts(letter, letter.id in done) for letter in found])
        return 0
    table(
        ("letter", "when", "topic", "stage", "reason", "attempts", "replayed", "detail"),
        (
            (one.id, when(one.at_us), f"{one.topic}/{one.partition}@{one.position}", one.stage, one.reason,
             one.attempts, "yes" if one.id in done else "no", one.detail[:80])
            for one in found
        ),
        empty="no dead letters",
    )  # fmt: skip
    return 0


def show_letter(settings: Settings, name: str, *, raw: bool, as_json: bool) -> int:
    letter = _named(_all(settings), [name])[0]
    if raw:
        click.echo(letter.value, nl=False)
        return 0
    facts = _facts(letter, letter.id in _replayed(settings))
    if as_json:
        document(facts)
        return 0
    value = facts.pop("value")
    pairs(facts | {"at_us": when(letter.at_us)})
    # With its control characters spelt out: a terminal must not obey them.
    click.echo(f"\n{value if isinstance(value, str) else cell(letter.value)}")
    return 0


def replay_letters(settings: Settings, choice: Choice, to: Path | None, *, as_json: bool) -> int:
    """Exit code 1 if there was nothing to replay or one of them cannot be."""
    if not (choice.names or choice.everything or choice.reason or choice.stage):
        raise UsageError("nothing is chosen to replay", hint="name letters, or use --all, --reason or --stage")
    found = _all(settings)
    found = _named(found, choice.names) if choice.names else _matching(found, choice.reason, choice.stage)
    done = set() if choice.again else _replayed(settings)
    chosen = [letter for letter in found if letter.id not in done]
    outside = [letter for letter in chosen if letter.topic == Topic.SOURCE]
    if outside and to is None and settings.ingestion.source != "http":
        raise CouldNot(
            f"{len(outside)} of {len(chosen)} came from outside: the bus cannot take them back",
            hint="write them with --to FILE, and feed that file to the source",
        )
    inside = [letter for letter in chosen if letter.topic != Topic.SOURCE]
    refused = _publish(settings, inside) | {letter.id: _NO_LINE for letter in outside if not _is_line(letter)}
    outside = [letter for letter in outside if letter.id not in refused]
    # At once, each kind by itself: should the rest fail, these must not go twice.
    _remember(settings, [letter for letter in inside if letter.id not in refused])
    if to is not None:
        _write(outside, to)
    else:
        _post(settings, outside)
    _remember(settings, outside)
    sent = [letter for letter in chosen if letter.id not in refused]
    _tell(sent, refused, len(found) - len(chosen), as_json=as_json, to_stderr=to == Path("-"))
    return 0 if sent and not refused else 1


def _all(settings: Settings) -> list[DeadLetter]:
    with opened(settings) as bus:
        found = [one for one in topic_records(bus, Topic.DEAD_LETTERS) if isinstance(one, DeadLetter)]
    return sorted(found, key=lambda letter: letter.at_us)


def _matching(found: Iterable[DeadLetter], reason: str | None, stage: str | None) -> list[DeadLetter]:
    wanted = reason.upper() if reason else None
    return [one for one in found if (not wanted or one.reason == wanted) and (not stage or one.stage == stage)]


def _named(found: Sequence[DeadLetter], names: Sequence[str]) -> list[DeadLetter]:
    by_id = {letter.id: letter for letter in found}
    strange = [name for name in names if name not in by_id]
    if strange:
        raise UsageError(f"no dead letter {strange[0]}", hint="`mendstream dead-letters list` lists them")
    return [by_id[name] for name in names]


def _facts(letter: DeadLetter, replayed: bool) -> dict[str, Any]:
    """For a report: the bytes as text where they are text."""
    try:
        value: str | bytes = letter.value.decode()
    except UnicodeDecodeError:
        value = letter.value
    names = [name for name in DeadLetter.__struct_fields__ if name != "value"]
    return {name: getattr(letter, name) for name in names} | {"replayed": replayed, "value": value}


# --- replay ----------------------------------------------------------------------------------------------------------


def _publish(settings: Settings, letters: Sequence[DeadLetter]) -> dict[str, str]:
    """Append each to the stream that it came from; returns the ids of those that cannot be, with the reason."""
    refused: dict[str, str] = {}
    outs: dict[Wing, list[Out]] = {}
    for letter in letters:
        try:
            out = _out(letter)
        except BadRecord as error:
            refused[letter.id] = str(error)
        else:
            outs.setdefault(wing_of(out.stream), []).append(out)
    for wing, blocks in outs.items():
        with opened(settings, wing, readonly=False) as bus:
            bus.publish(blocks)
    return refused


def _out(letter: DeadLetter) -> Out:
    """Raises BadRecord if the bytes are no record of their topic: they would only come back."""
    if letter.topic not in set(SPECS):
        raise BadRecord(f"{letter.topic} is no topic of this version")
    topic = Topic(letter.topic)
    if SPECS[topic].codec is Codec.FRAME:
        return Out(Stream(topic, letter.partition), letter.value, Frame.decode(letter.value).rows)
    decode(topic, letter.value.strip())
    return Out(Stream(topic, letter.partition), letter.value.strip(), 1)


def _post(settings: Settings, letters: Sequence[DeadLetter]) -> None:
    """To the running HTTP source; raises CouldNot unless it has them in the log."""
    s = settings.ingestion
    for path in ("/events", "/feedback"):
        # Ingestion says of a feedback line that it is one; its bytes do not.
        mine = [one for one in letters if one.detail.startswith("feedback") is (path == "/feedback")]
        for start in range(0, len(mine), _POST_LINES):
            connection = http.client.HTTPConnection(s.http_host, s.http_port, timeout=60)
            try:
                connection.request("POST", path, body=_lines(mine[start : start + _POST_LINES]))
                answer = connection.getresponse()
                said = answer.read(200).decode(errors="replace")
            except OSError as error:
                raise CouldNot(
                    f"no HTTP source answers on {s.http_host}:{s.http_port}: {error}",
                    hint="start the house, or write the lines with --to FILE",
                ) from error
            finally:
                connection.close()
            if answer.status != http.HTTPStatus.OK:
                raise CouldNot(f"the HTTP source answers {answer.status}: {said}", hint="try again in a moment")


def _is_line(letter: DeadLetter) -> bool:
    """Whether a source of lines would read these bytes as one record: what is encoded in binary it would not."""
    value = letter.value.rstrip(b"\r\n")
    return b"\n" not in value and b"\0" not in value


def _lines(letters: Sequence[DeadLetter]) -> bytes:
    return b"".join(letter.value.rstrip(b"\r\n") + b"\n" for letter in letters)


def _write(letters: Sequence[DeadLetter], to: Path) -> None:
    lines = _lines(letters)
    if to == Path("-"):
        click.echo(lines, nl=False)
        return
    try:
        with to.open("ab") as file:
            file.write(lines)
    except OSError as error:
        raise CouldNot(f"cannot write {to}: {error.strerror}", hint="choose another file") from error


def _journal(settings: Settings) -> Path:
    """Ids of what was replayed: a second chance is given once, or an event would be decided twice."""
    return Path(settings.run.data_dir) / "replayed.txt"


def _replayed(settings: Settings) -> set[str]:
    path = _journal(settings)
    return set(path.read_text(encoding="utf-8").split()) if path.exists() else set()


def _remember(settings: Settings, letters: Sequence[DeadLetter]) -> None:
    if letters:
        with _journal(settings).open("a", encoding="utf-8") as file:
            file.writelines(f"{letter.id}\n" for letter in letters)


def _tell(sent: list[DeadLetter], refused: dict[str, str], before: int, *, as_json: bool, to_stderr: bool) -> None:
    if as_json and not to_stderr:
        document({"replayed": [letter.id for letter in sent], "refused": refused, "replayed_before": before})
        return
    for name, why in refused.items():
        note(f"{name} cannot be replayed: {why}")
    text = f"{len(sent)} replayed, {len(refused)} refused" + (f", {before} were replayed before" if before else "")
    click.echo(text, err=to_stderr)
