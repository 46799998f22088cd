"""The four pipeline stages: ingestion, feature, model, decision."""
