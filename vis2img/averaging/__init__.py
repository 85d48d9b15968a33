"""Averaged visibilities: sums in uv cells, the store that holds them on disk, and the run that makes it.

It may import ``imaging`` (the density grid), ``ms`` and what is below.
It must never know which images will be drawn from the averages.
"""
