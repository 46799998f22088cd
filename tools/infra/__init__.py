"""What Prometheus, Alertmanager, Grafana and Kafka are told about the house, made from the house's own tables."""
