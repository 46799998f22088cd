"""The flights demo: a pipeline as a user would write it, the stream that feeds it, and its first models."""
