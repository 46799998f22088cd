"""Faults as data. Beside the wings: knows the contracts and nobody else; who puts a fault in is `runtime/inject.py`."""
