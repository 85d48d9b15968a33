"""The truth of a simulated observation: its sources on the pixels of any picture, with boxes, masks and brightness.

May import simulate.sky. Must never know how the sky was drawn or observed, nor that networks are trained on it.
"""
