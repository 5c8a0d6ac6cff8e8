"""The real server with failing stores, kill -9, and a long load: `make faults`, `make soak`."""
