"""`train` and `retrain` by hand: a table or the log becomes a version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from tests.unit.models.world import NAMES, START_US, Hand, MemoryBus, population, serve

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.adapters.models.offline import train_from_log, train_from_table
from mendstream.adapters.models.onnx import LoadedModels
from mendstream.contracts.errors import ModelError, UsageError


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "models")


@pytest.fixture
def table() -> pa.Table:
    matrix, labels = population(500, 1)
    label = pa.array([None if i % 10 == 0 else bool(v) for i, v in enumerate(labels)])
    columns = {name: pa.array(matrix[:, i], from_pandas=True) for i, name in enumerate(NAMES)}
    return pa.table({"event_id": [f"e{i}" for i in range(500)], **columns, "late": label})


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_table_becomes_a_version_that_can_be_served(catalogue, tmp_path, table, suffix):
    place = tmp_path / f"rows{suffix}"
    write = pyarrow.parquet.write_table if suffix == ".parquet" else pyarrow.csv.write_csv
    write(table, place)
    card = train_from_table(catalogue, place, label="late", now_us=START_US)
    assert (card.version, card.source, card.features, card.rows) == ("v1", "user", NAMES, 450)
    matrix, labels = population(1000, 2)
    scores, _ = LoadedModels(catalogue).fetch("v1", card.digest).score(matrix)
    assert np.mean((scores >= 0.5) == (labels == 1)) > 0.93


def test_wrong_tables_are_named_with_what_is_there(catalogue, tmp_path, table):
    place = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(table, place)
    with pytest.raises(UsageError, match="no column 'label'") as caught:
        train_from_table(catalogue, place, label="label", now_us=0)
    assert "late" in caught.value.hint
    with pytest.raises(UsageError, match=r"'event_id' .* is string, not a number"):
        train_from_table(catalogue, place, label="late", features=("event_id", "a"), now_us=0)
    with pytest.raises(UsageError, match=r"neither \.parquet nor \.csv"):
        train_from_table(catalogue, tmp_path / "rows.xlsx", label="late", now_us=0)
    with pytest.raises(ModelError, match="cannot read"):
        train_from_table(catalogue, tmp_path / "none.parquet", label="late", now_us=0)
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(ModelError, match="cannot read"):
        train_from_table(catalogue, tmp_path / "bad.parquet", label="late", now_us=0)


def test_the_log_becomes_a_version(catalogue):
    bus = MemoryBus(Hand())
    serve(bus, *population(400, 3))
    card = train_from_log(catalogue, bus, partitions=1, features=NAMES, since_us=START_US, now_us=START_US + 9)
    assert card.rows == 400
    assert (card.data_from_us, card.data_until_us) == (START_US, START_US)
    with pytest.raises(ModelError, match="the log has 0 labelled rows"):
        train_from_log(catalogue, bus, partitions=1, features=NAMES, since_us=START_US + 1, now_us=START_US + 9)
