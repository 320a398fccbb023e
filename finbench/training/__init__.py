"""A recipe in, an adapter out; rates searched, cost planned, adapters merged."""
