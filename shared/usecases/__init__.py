"""One module per function: orchestration only, ports as arguments."""
