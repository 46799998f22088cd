"""The wing that does: every library that touches the world. Sinks and ports, one package a port."""
