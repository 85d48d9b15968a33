"""Simulated observations: a labelled sky, observed into a measurement set, with its truth beside it.

May import cluster, imaging, ms and pictures. Must never know the loader, networks or training.
"""
