"""Pretraining with low-rank structure beside dense baselines: text, shards, the loop, the report.

``spec`` reads the recipe; ``corpus``, ``vocabulary``, ``shards`` and ``mixture`` turn text into batches; ``members``
makes the models; ``loop`` and ``fit`` train one, ``run`` all of them; ``held`` scores text; ``report`` shows the end.
"""
