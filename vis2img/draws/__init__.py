"""Fields imaged under drawn parameters: priors and their presets, the contract of fields, and each kind of them.

It may import ``dataset``, ``imaging`` and what is below; it must never know of views, batches or workers.
"""
