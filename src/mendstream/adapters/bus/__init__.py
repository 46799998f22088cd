"""Buses: implementations of `contracts.ports.Bus`. Each passes the contract suite in tests/contract."""
