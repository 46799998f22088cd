"""The flights pipeline: what a user's pipeline does, on the demo's own lines."""

from collections import defaultdict

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from mendstream.agents.pipeline.feature import FeatureAgent
from mendstream.agents.pipeline.ingestion import IngestionAgent
from mendstream.contracts.agent import Batch, Line
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.topics import Topic
from mendstream.demo.pipeline import RATES, Flight, flights
from mendstream.demo.source import bench_lines

LINE = (
    b'{"id":"f0","tailnum":"N1","carrier":"UA","origin":"EWR","dest":"ORD","hour":6,"minute":30,"distance":719,'
    b'"dep_delay":20,"seats":null,"plane_year":1999}'
)


def columns(rows):
    made = {}
    for name in Flight.__struct_fields__:
        values = [getattr(row, name) for row in rows]
        if isinstance(values[0], str):
            made[name] = pa.array(values)
        else:
            made[name] = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return made


def earlier_means(rows, last):
    """The window as one would write it down: the mean delay of a plane's last flights."""
    seen = defaultdict(list)
    means = []
    for row in rows:
        held = seen[row.tailnum][-last:]
        means.append(sum(held) / len(held) if held else np.nan)
        seen[row.tailnum].append(row.dep_delay)
    return np.array(means)


def features_of(line, mean):
    row = msgspec.json.decode(line, type=Flight)
    made = flights.compute_features(columns([row]), {"tail_delay4": np.array([mean])})
    return {name: values[0] for name, values in made.items()}


def test_a_flight_becomes_twelve_numbers():
    made = features_of(LINE, 40.0)
    assert list(made) == [
        "hour", "distance", "seats", "plane_year", "carrier_rate", "dest_rate", "origin_rate", "dep_delay", "delay_log",
        "is_delayed", "leaves_late", "delay_smoothed",
    ]  # fmt: skip
    assert made["hour"] == 6.5
    assert np.isnan(made["seats"])
    assert made["plane_year"] == 1999
    assert made["carrier_rate"] == np.float32(RATES.carrier["UA"])
    assert made["dest_rate"] == np.float32(RATES.dest["ORD"])
    assert made["origin_rate"] == np.float32(RATES.origin["EWR"])
    assert made["dep_delay"] == 20
    assert made["delay_log"] == pytest.approx(np.log(21), rel=1e-6)
    assert (made["is_delayed"], made["leaves_late"]) == (1, 1)
    assert made["delay_smoothed"] == pytest.approx(0.9 * 20 + 0.1 * 40)


def test_an_unknown_airport_has_the_overall_late_share():
    assert features_of(LINE.replace(b"ORD", b"XXX"), 0.0)["dest_rate"] == np.float32(RATES.late_share)


def test_a_plane_that_was_not_seen_yet_has_the_usual_delay():
    assert features_of(LINE, np.nan)["delay_smoothed"] == pytest.approx(18 + 0.1 * RATES.usual_delay)


def test_a_storm_counts_as_two_hours():
    made = features_of(LINE.replace(b'"dep_delay":20', b'"dep_delay":1300'), 900.0)
    assert made["dep_delay"] == 120
    assert made["delay_smoothed"] == pytest.approx(120)


@pytest.mark.parametrize(
    "bad",
    [
        LINE.replace(b'"dep_delay":20', b'"dep_delay":1441'),
        LINE.replace(b'"hour":6', b'"hour":24'),
        LINE.replace(b'"tailnum":"N1"', b'"tailnum":""'),
        LINE.replace(b'"seats":null', b'"seats":0'),
        LINE.replace(b'"distance":719', b'"distance":null'),
    ],
)
def test_values_out_of_bounds_are_refused(bad):
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(bad, type=Flight)


def test_without_the_model_who_leaves_late_is_expected_late():
    scores = flights.compute_fallback({"leaves_late": np.array([0.0, 1.0])})
    assert scores.tolist() == [0.1, 0.9]


def test_a_score_at_the_threshold_is_late():
    assert flights.compute_outcome(np.array([0.39, 0.4, 0.9]), {}, 0.4) == ["on-time", "late", "late"]


def test_serving_and_a_plain_computation_agree_on_features_however_the_events_are_cut():
    lines = bench_lines(2_000, seed=5)
    rows = [msgspec.json.decode(line, type=Flight) for line in lines]
    wanted = flights.compute_features(columns(rows), {"tail_delay4": earlier_means(rows, 4)})
    assert np.isfinite(earlier_means(rows, 4)).sum() > 500
    ingestion, feature = IngestionAgent(flights), FeatureAgent(flights)
    raw, windows = ingestion.start(0), feature.start(0)
    served = []
    for start, stop in ((0, 1), (1, 500), (500, 2_000)):
        part = [Line(line, n) for n, line in enumerate(lines[start:stop], start)]
        raw, out = ingestion.step(raw, Batch(turn="t", partition=0, config=LiveConfig(), lines=part), 0)
        assert not out.dead
        frames = [frame for _, _, frame in out.frames]
        batch = Batch(turn="t", partition=0, config=LiveConfig(), frames=frames, topics=[Topic.RAW_EVENTS])
        windows, out = feature.step(windows, batch, 0)
        served += [frame for _, _, frame in out.frames]
    for name, values in wanted.items():
        np.testing.assert_array_equal(np.concatenate([frame.numbers(name) for frame in served]), values, err_msg=name)
