"""What every layer uses: the nouns (``records``), errors, files, paths, what ships (``catalog``)."""
