"""What arrives at a collector, by OTLP over HTTP; what a house without tracing does not do."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import timeit

import pytest
from tests.support.collector import Collector
from tests.unit.metrics import given
from tests.unit.metrics.given import NOW
from tests.unit.tracing.test_batches import framed
from tests.unit.tracing.test_incidents import healed

from mendstream import __version__
from mendstream.adapters.metrics import Meter
from mendstream.adapters.tracing import Tracer, check
from mendstream.adapters.tracing.names import Name, of_incident
from mendstream.adapters.tracing.otlp import Exporter
from mendstream.adapters.tracing.tracer import _installed
from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import SettingsError
from mendstream.settings import Settings, load
from mendstream.settings.groups import Tracing


@pytest.fixture
def collector():
    with Collector() as running:
        yield running


def tracer(endpoint: str, lost=lambda spans: None, **options) -> Tracer:
    settings = Tracing(enabled=True, endpoint=endpoint, sample=1.0)
    return Tracer(
        settings, house="flights", role="healing", process="healing-0", system="kafka", lost=lost, **options
    )  # fmt: skip


def test_an_incident_arrives_as_one_trace_of_seven_steps(collector):
    telling = tracer(collector.endpoint)
    telling.told("healing", healed())
    telling.close()
    spans = collector.until(lambda spans: len(spans) == 10 and spans)
    whole = spans[-1]
    assert whole.trace == f"{of_incident('inc-1').trace:032x}"
    assert (whole.name, whole.parent, whole.id) == ("incident PERF_DROP", "", f"{of_incident('inc-1').span:016x}")
    assert {span.parent for span in spans[:-1]} == {whole.id}
    assert {span.trace for span in spans} == {whole.trace}
    assert (whole.start_ns, whole.end_ns) == (NOW * 1000, NOW * 1000 + 2_500_000_000)
    assert whole.service == {
        "service.name": "mendstream-healing", "service.namespace": "flights", "service.instance.id": "healing-0",
        "service.version": __version__,
    }  # fmt: skip


def test_a_batch_arrives_with_its_links(collector):
    telling = tracer(collector.endpoint)
    one, two = Name(7, 8), Name(9, 10)
    telling.step(TaskId("model", 0), framed(one.header, two.header), NOW).done(2, 0.001, NOW + 3)
    telling.close()
    (span,) = collector.until(lambda spans: spans)
    assert span.links == ((f"{7:032x}", f"{8:016x}"), (f"{9:032x}", f"{10:016x}"))
    assert (span.name, span.kind, span.parent) == ("process features", 5, f"{8:016x}")  # 5: consumer
    assert span.attributes["messaging.system"] == "kafka"
    assert span.attributes["messaging.batch.message_count"] == 2


def test_an_agent_that_tells_of_no_incident_is_not_listened_to():
    sent = []
    telling = tracer("http://nowhere", send=lambda spans: bool(sent.append(spans)))
    telling.told("judge", healed())
    telling.close()
    assert sent == []


def test_a_collector_that_refuses_is_a_loss_and_no_error(collector, caplog):
    collector.answers = [400]
    assert not Exporter(collector.endpoint, {}).send([])
    assert Exporter(f"{collector.endpoint}/v1/traces", {}).send([])
    assert collector.requests == 2
    assert caplog.records == []


def test_what_did_not_arrive_is_counted_once_in_the_metrics_of_the_process():
    base = given.free_base()
    with contextlib.closing(Meter(given.settings(base), given.role("fused"), 1, 0)) as meter:
        telling = tracer("http://nowhere", lost=meter.lost_spans, send=lambda spans: False)
        telling.told("healing", healed())
        telling.close()
        assert "mendstream_spans_dropped_total 10.0" in given.scrape(base)
        assert "mendstream_spans_dropped_total 0.0" in given.scrape(base + 1)


def test_a_tracer_that_is_off_is_not_imported():
    code = "import sys, mendstream.runtime.worker, mendstream.runtime.local, mendstream.runtime.assembly as a;"
    code += "print(*[m for m in sys.modules if m.startswith(('opentelemetry', 'mendstream.adapters.tracing'))])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_a_turns_own_thread_imports_nothing_of_opentelemetry():
    code = "import sys, mendstream.adapters.tracing; print(*[m for m in sys.modules if m.startswith('opentelemetry')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_a_batch_that_is_not_sampled_costs_next_to_nothing():
    telling = tracer("http://nowhere", send=lambda spans: True)
    task, batch = TaskId("model", 0), framed("")
    took = min(timeit.repeat(lambda: telling.step(task, batch, NOW), number=2000, repeat=5)) / 2000
    telling.close()
    assert took < 50e-6  # 1 to 2 microseconds on a quiet machine


@pytest.mark.parametrize("endpoint", ["localhost:4317", "grpc://collector:4317", "http://"])
def test_an_endpoint_that_is_no_url_is_refused(endpoint):
    with pytest.raises(SettingsError, match=r"tracing\.endpoint") as refused:
        check(Tracing(enabled=True, endpoint=endpoint))
    assert "4318" in refused.value.hint


def test_without_the_extra_the_hint_says_how_to_install_it(monkeypatch):
    assert _installed()
    monkeypatch.setattr("mendstream.adapters.tracing.tracer._installed", lambda: False)
    with pytest.raises(SettingsError) as refused:
        check(Tracing(enabled=True))
    assert refused.value.hint == "pip install 'mendstream[otel]'"


class TestSettings:
    def test_tracing_is_off_unless_somebody_asks_for_it(self):
        assert not Settings().tracing.enabled
        assert not load(env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, dotenv=None).settings.tracing.enabled

    def test_the_usual_name_of_the_endpoint_is_understood_and_ours_is_stronger(self):
        usual = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}
        found = load(env=usual, dotenv=None)
        assert found.settings.tracing.endpoint == "http://c:4318"
        assert found.origins["tracing.endpoint"] == "environment OTEL_EXPORTER_OTLP_ENDPOINT"
        both = load(env=usual | {"MENDSTREAM_TRACING_ENDPOINT": "http://d:4318"}, dotenv=None)
        assert both.settings.tracing.endpoint == "http://d:4318"
