"""A folder and a name in, mendstream.toml and pipeline.py out: both load as they are."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

import click

from mendstream.contracts.errors import CouldNot, UsageError
from mendstream.settings.fields import FIELDS, GROUP_DOCS, Field, toml_value

MODULE = "pipeline"


def write_start(folder: Path, name: str, *, force: bool) -> int:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UsageError(
            f"{name!r} cannot name a pipeline", hint="use a-z, 0-9 and underscore: it names a variable too"
        )
    texts = {"mendstream.toml": settings_text(name), f"{MODULE}.py": _PIPELINE.replace("NAME", name)}
    there = [file for file in texts if (folder / file).exists()]
    if there and not force:
        raise CouldNot(f"{folder / there[0]} is there already", hint="--force overwrites it, or choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CouldNot(f"cannot write into {folder}: {error.strerror}", hint="choose a writable folder") from error
    click.echo(f"wrote {', '.join(str(folder / file) for file in texts)}")
    click.echo("next: `mendstream check`, then `mendstream run`", err=True)
    return 0


def settings_text(name: str) -> str:
    """Every setting with its docs; all but the few that a start needs are comments."""
    chosen = {"pipeline": f"{MODULE}:{name}", "ingestion.source": "http"}
    lines = [
        "# Settings of mendstream. What stands here beats the defaults; the environment (MENDSTREAM_RUN_FUSE=true)",
        "# and the command line (--set run.fuse=true) beat what stands here. A line with # in front shows the default.",
        "",
    ]
    for field in FIELDS:
        if field.kind == "secret":  # has its place in the environment
            continue
        if field.group and f"[{field.group}]" not in lines:
            lines += ["", f"# {GROUP_DOCS[field.group]}", f"[{field.group}]"]
        lines.append(f"# {field.doc} ({field.wanted})")
        lines.append(_line(field, chosen.get(field.key)))
    return "\n".join(lines) + "\n"


def _line(field: Field, chosen: str | None) -> str:
    if chosen is not None:
        return f"{field.name} = {toml_value(chosen)}"
    return f"# {field.name} = {toml_value(field.default)}"


_PIPELINE = '''"""The pipeline NAME: what an event is, its features, what serves without a model, what is decided.

Functions take whole columns, one row per event: numbers as numpy arrays (NaN where missing), strings as Arrow arrays.
A row's result must not depend on the other rows, for batches are cut anywhere. `mendstream check` tries it.
"""

from typing import Annotated

import numpy as np
from msgspec import Meta

from mendstream import Event, Mean, Pipeline, codes


class Payment(Event, frozen=True):
    """One JSON line. What breaks these types or bounds becomes a dead letter."""

    id: str
    card: str
    country: str
    amount: Annotated[float, Meta(ge=0, le=1_000_000)]
    hour: Annotated[int, Meta(ge=0, le=23)] | None = None


NAME = Pipeline(
    "NAME",
    event=Payment,
    id="id",  # leave it out, and mendstream issues ids
    key="card",  # events of one key keep their order, and share windows
    windows={"usual": Mean("amount", last=8)},  # the mean of the key's 8 amounts before this one
    positive="block",
    negative="pass",
)

COUNTRIES = ("DE", "FR", "NL")


@NAME.features
def features(events, windows):
    """Columns for the model, under the names that it was trained with."""
    usual = np.where(np.isnan(windows["usual"]), events["amount"], windows["usual"])
    return {
        "amount": np.log1p(events["amount"]),
        "ratio": events["amount"] / np.maximum(usual, 1.0),
        "country": codes(events["country"], COUNTRIES),
        "hour": events["hour"],
    }


@NAME.fallback
def rules(features):
    """Scores without the model: SAFE_MODE serves them, and a house without a model does."""
    return np.where(features["ratio"] > 5, 0.9, 0.1)


# Without this, `positive` is decided where the score reaches the threshold, and `negative` elsewhere.
@NAME.decide
def decide(score, features, threshold):
    return np.where(score >= threshold, "block", "pass")
'''
