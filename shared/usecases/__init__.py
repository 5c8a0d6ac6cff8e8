"""Use cases: one package for each thing. A use case applies rules to stored documents and takes a `Context`."""
