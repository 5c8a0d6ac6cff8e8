"""Implementations of the ports, and the only modules that import a store's or a cloud's client library."""
