"""Measurement sets: their tables, what they hold, what a selection names of it, and reading that as visibilities.

It may import ``visibilities``, ``units``, ``coordinates`` and ``errors``, and is the only room that knows casacore.
It must never know how images are made.
"""
