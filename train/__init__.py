"""Self-supervised training: losses, schedules, optimiser, steps, checkpoints and monitors.

Import the modules by name (``from vis2img.train.step import train_step``); the package itself loads nothing.
"""
