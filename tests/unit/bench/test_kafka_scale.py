"""What the bench of replicas makes of its runs; the runs themselves need a broker."""

from mendstream.bench import kafka_scale
from mendstream.bench.figures import Report
from mendstream.bench.kafka_scale import Spent, events, figures, replicas
from mendstream.contracts.agent import Line


def spent(cpu_us, events_per_s):
    """Of a million events."""
    return Spent(events=1_000_000, seconds=1e6 / events_per_s, cpu_s=cpu_us, others_s=1.0)


def reached(one, two):
    return Report(bench="kafka-scale", figures=figures({1: one, 2: two})).reached


def test_there_are_as_many_replicas_as_cores_and_never_more_than_partitions():
    assert replicas(1) == (1, 2)
    assert replicas(2) == (1, 2)
    assert replicas(3) == (1, 2, 3)
    assert replicas(16) == (1, 2, kafka_scale.PARTITIONS)


def test_replicas_that_cost_the_same_and_are_faster_together_reach_what_is_wanted():
    assert reached([spent(4.0, 100_000)], [spent(4.5, 150_000)])


def test_replicas_that_cost_more_do_not_whichever_is_dearer():
    assert not reached([spent(4.0, 100_000)], [spent(4.7, 150_000)])
    assert not reached([spent(4.7, 100_000)], [spent(4.0, 150_000)])


def test_replicas_that_are_slower_together_do_not():
    assert not reached([spent(4.0, 100_000)], [spent(4.0, 90_000)])


def test_one_disturbed_run_of_three_counts_for_nothing():
    calm, disturbed = spent(4.0, 100_000), spent(9.0, 20_000)
    assert reached([calm, calm, calm], [spent(4.0, 150_000), disturbed, spent(4.1, 140_000)])


def test_no_two_events_have_the_same_id(monkeypatch):
    stock = [Line(b'{"id":"f%d","x":1}' % n, n) for n in range(3)]
    monkeypatch.setattr(kafka_scale, "stock", lambda: stock)
    ids = [line.partition(b",")[0] for line in events()]
    assert len(set(ids)) == len(ids) == kafka_scale.ROUNDS * len(stock)
