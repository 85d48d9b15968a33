"""What a network sees of a draw: crops and where they lie, resampled, stretched and changed; contact sheets of them.

It may import ``draws`` and what is below; it must never know of batches, workers or networks.
"""
