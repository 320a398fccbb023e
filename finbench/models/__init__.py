"""Bases and adapters: found, checked, loaded, written."""
