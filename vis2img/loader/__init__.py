"""Batches without end: one loader over a source, which is draws of fields that workers make, or pictures.

It may import all rooms of ``vis2img`` but ``simulate``; it must never know of networks, accelerators or steps.
"""
