"""Embeddings: where patches come from, what vector a network gives each, and the table that all are written to.

It may import runs, the loader and the draws; it must not know what is scored with the vectors, nor the command line.
"""
