"""The bus on Apache Kafka: fenced transactions over outputs, positions and state."""
