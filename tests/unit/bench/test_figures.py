"""Bounds hold for the worst run; the median is printed beside it; nothing that was measured is left out."""

from __future__ import annotations

import json

import msgspec
import pytest

from mendstream.bench import figures
from mendstream.bench.figures import Figure, Report


def figure(*runs, most=None, least=None):
    return Figure(what="a thing", unit="s", runs=runs, most=most, least=least)


def test_the_worst_of_an_upper_bound_is_the_greatest_run():
    slow = figure(1.0, 3.0, 2.0, most=2.5)
    assert (slow.worst, slow.median, slow.reached) == (3.0, 2.0, False)


def test_the_worst_of_a_lower_bound_is_the_least_run():
    fast = figure(1.0, 3.0, 2.0, least=1.0)
    assert (fast.worst, fast.median, fast.reached) == (1.0, 2.0, True)


def test_a_run_without_a_number_reaches_no_bound():
    lost = figure(1.0, None, most=9.0)
    assert (lost.worst, lost.median, lost.reached) == (None, 1.0, False)


def test_no_run_at_all_reaches_no_bound():
    assert figure(most=1.0).reached is False


def test_a_figure_without_a_bound_is_only_reported():
    told = figure(1.0, 2.0)
    assert told.reached is None
    assert Report(bench="b", figures={"told": told}).reached


def test_one_figure_out_of_bounds_is_the_verdict_of_the_report():
    report = Report(bench="b", figures={"good": figure(1.0, most=1.0), "bad": figure(1.0, least=2.0)})
    assert not report.reached


def test_the_document_of_one_bench_has_its_figures_at_the_top():
    report = Report(bench="b", figures={"x": figure(1.0, 2.0, least=1.5)}, details={"budget_us": {"step": 0.5}})
    found = json.loads(msgspec.json.encode(figures.document("b", {"cores": 2}, [report])))
    assert found == {
        "bench": "b",
        "reached": False,
        "machine": {"cores": 2},
        "figures": {
            "x": {
                "what": "a thing",
                "unit": "s",
                "worst": 1.0,
                "median": 1.5,
                "wanted": {"least": 1.5},
                "reached": False,
                "runs": [1.0, 2.0],
            }
        },
        "budget_us": {"step": 0.5},
    }


def test_the_document_of_all_has_each_bench_under_its_name():
    reports = [Report(bench="a", figures={"x": figure(1.0, most=2.0)}), Report(bench="b", figures={"y": figure(1.0)})]
    found = figures.document("all", {}, reports)
    assert found["reached"] is True
    assert list(found["benches"]) == ["a", "b"]
    assert found["benches"]["b"]["figures"]["y"]["wanted"] is None


def test_the_table_says_in_a_word_whether_a_bound_was_reached():
    rows = figures.rows(
        Report(bench="b", figures={"x": figure(1.0, most=0.5), "y": figure(2.0, least=1.0), "z": figure(3.0)})
    )
    assert [(row[0], row[4], row[5]) for row in rows] == [("x", "<= 0.5", "NO"), ("y", ">= 1", "yes"), ("z", "-", "-")]


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.8512, "0.851"), (234_567.8, "234,568"), (12.34, "12.3")])
def test_numbers_are_shown_in_three_digits_or_whole_thousands(value, text):
    assert figures.shown(value) == text
