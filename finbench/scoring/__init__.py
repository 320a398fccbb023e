"""Prompts and documents in; metrics, intervals and paired tests out."""
