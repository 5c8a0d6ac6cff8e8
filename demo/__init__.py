"""The whole system on one machine: `make demo`, and what the end-to-end tests start."""
