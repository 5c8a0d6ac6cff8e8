"""The only importers of a store's or a cloud's client."""
