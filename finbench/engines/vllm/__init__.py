"""vLLM: one start for a base and all its adapters; requests of different adapters share a batch.

vLLM itself runs in processes of its own (``worker.py``); this side encodes, plans and waits. Nothing here imports it.
"""
