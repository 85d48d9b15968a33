"""Visibilities to dirty images: sampling, rotation, weights, gridding, beams, and images as FITS files and pictures.

May import the visibilities, what a selection is (``ms.selection``), coordinates, units and files.
Must never know where visibilities come from, what is drawn at random, or that anything is learned from images.
"""
