"""Data sets: from the authors' original files to canonical rows (see ``canonical.py`` for the format)."""
