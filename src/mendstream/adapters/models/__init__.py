"""Models: files by digest, computation by ONNX Runtime, training as a sink, and what MLflow gets to know of it.

A process that only serves imports `catalogue` and `onnx`; scikit-learn, skl2onnx and MLflow are imported where they are
used, so that nobody else pays for them.
"""
