"""Models: files by digest, computation by ONNX Runtime, training as a sink, and what MLflow gets to know of it.

A process that only serves imports `catalogue` and `onnx`; scikit-learn and MLflow are imported where they are used, in
processes of their own (`apart`), so that nobody else pays for them.
"""
