"""Losses, and what they need of a batch: DINO, BYOL and what DINOv2 adds, as pure functions of arrays.

They import models and settings, and must never know of files, of optimisers or of how batches are made.
"""
