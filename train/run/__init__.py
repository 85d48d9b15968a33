"""A run: its folder, loop, checkpoints, metrics and monitors, and how it is stopped and goes on.

It imports the loader and the step, and must never know of what is made of a run: embeddings, scores, reports.
"""
