"""Real services for development and tests: one module each, with `missing`, `install` and `start`.

Nothing in here is part of mendstream: the house reaches a service by its address alone.
"""
