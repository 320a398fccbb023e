"""Subjects and tasks in, scorecards out; and scorecards verified."""
