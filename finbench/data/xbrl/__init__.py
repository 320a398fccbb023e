"""Filings in XBRL: read (instance or inline), choose facts, ask questions whose answers are in the filing.

``build.build`` is the whole of it; the command is ``finbench data xbrl``. Reading is plain XML: neither the
us-gaap schemas nor a network are needed, and nothing that a filing names is ever fetched.
"""
