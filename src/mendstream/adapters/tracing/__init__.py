"""OpenTelemetry traces: a span for a sampled batch in each stage, a trace for each incident. Off by default.

Only `otlp` imports the libraries of the extra `otel`, and only the thread that sends imports `otlp`.
"""

from mendstream.adapters.tracing.tracer import Tracer, check

__all__ = ["Tracer", "check"]
