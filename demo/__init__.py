"""The whole system on one machine, for `make demo` and the end-to-end tests."""
