"""Self-supervised training: losses, schedules, optimiser, steps, checkpoints and monitors.

It imports models and all of vis2img but the command line, which it must never know of. Import the modules by name
(``from vis2img.train.step import train_step``); the package itself loads nothing.
"""
