"""Labelled radio skies: what a source consists of, how sources are drawn or read, and the tables that hold them.

May import pictures for pictures of real sources. Must never know telescopes, visibilities or images.
"""
