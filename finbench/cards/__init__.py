"""Scorecards: on disk, compared, shown, exported."""
