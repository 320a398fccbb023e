"""Models whose linear layers have low-rank structure: the layers, how they start, are counted and stored.

Below ``bases``, which loads what is stored here; training them from nothing is ``pretrain``.
"""
