"""Pictures of single sources, such as survey cutouts: read, labelled, grouped by source, and cut as views are.

Imports views and what lies below them; knows nothing of simulations, networks or training. ``formats`` is the one
reader, whatever the form of a file; it takes ``published`` batches without running what their pickles hold.
"""
