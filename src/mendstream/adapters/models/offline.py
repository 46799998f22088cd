"""Training on demand, for the verbs `train` and `retrain`: a table or the log comes in, a version goes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.harvest import Harvest
from mendstream.adapters.models.learning import ROWS_MIN
from mendstream.adapters.models.training import train
from mendstream.contracts.errors import ModelError, UsageError
from mendstream.contracts.frame import HEAD
from mendstream.contracts.models import Array, ModelCard
from mendstream.contracts.ports import Bus


def train_from_table(
    catalogue: Catalogue,
    place: Path,
    *,
    label: str,
    now_us: int,
    features: Sequence[str] | None = None,
    version: str | None = None,
    source: str = "user",
    seed: int = 0,
) -> ModelCard:
    """Train on a .parquet or .csv of feature columns and a 0/1 `label` column, oldest row first.

    Rows without a label are left out. Raises UsageError for a wrong column, ModelError if it cannot be trained on.
    """
    table = _read(place)
    names = tuple(features or (n for n in table.column_names if n not in (*HEAD, label)))
    for name in (label, *names):
        if name not in table.column_names:
            raise UsageError(f"{place} has no column {name!r}", hint=f"columns: {', '.join(table.column_names)}")
    columns = {name: _numbers(table, name, place) for name in (label, *names)}
    known = np.flatnonzero(np.isfinite(columns[label]))
    matrix = np.column_stack([columns[name][known] for name in names]).astype(np.float32)
    trained = train(matrix, columns[label][known], names, seed)
    card = trained.parts.card(
        version=version or catalogue.next_version(),
        created_at_us=now_us,
        data_window=f"{len(known)} labelled rows of {place.name}",
        source=source,
    )
    return catalogue.add(trained.onnx, card)


def train_from_log(
    catalogue: Catalogue,
    bus: Bus,
    *,
    partitions: int,
    features: Sequence[str],
    since_us: int,
    now_us: int,
    live: ModelCard | None = None,
    rows_max: int = 20_000,
    seed: int = 0,
) -> ModelCard:
    """Train on what has been served and labelled since `since_us`. Raises ModelError if that is too little."""
    harvest = Harvest(bus, partitions, features, since_us=since_us, rows_min=ROWS_MIN, rows_max=rows_max)
    rows = harvest.rows()
    if rows is None:
        raise ModelError(
            f"cannot train: the log has {harvest.count()} labelled rows in that time, {ROWS_MIN} are needed",
            hint="choose an earlier start, or wait for more feedback",
        )
    trained = train(rows.matrix, rows.labels, features, seed, live=live)
    card = trained.parts.card(
        version=catalogue.next_version(),
        created_at_us=now_us,
        data_window=rows.window,
        data_from_us=rows.from_us,
        data_until_us=rows.until_us,
    )
    return catalogue.add(trained.onnx, card)


def _read(place: Path) -> Any:
    import pyarrow.csv
    import pyarrow.parquet

    try:
        match place.suffix:
            case ".parquet":
                return pyarrow.parquet.read_table(place)
            case ".csv":
                return pyarrow.csv.read_csv(place)
    except (pa.ArrowException, OSError) as error:
        raise ModelError(
            f"cannot read {place}: {str(error).splitlines()[0]}", hint="a parquet or CSV file with a header is wanted"
        ) from error
    raise UsageError(f"{place} is neither .parquet nor .csv", hint="save the features as one of them")


def _numbers(table: Any, name: str, place: Path) -> Array:
    """A column as float64, NaN where it is missing; shape [rows]."""
    try:
        column = table.column(name).cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(
            f"column {name!r} of {place} is {table.schema.field(name).type}, not a number",
            hint="name the feature columns, or encode strings as numbers first",
        ) from error
    return column.to_numpy()  # type: ignore[no-any-return]
