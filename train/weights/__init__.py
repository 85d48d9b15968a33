"""Weights of others and for others: files of PyTorch and safetensors, and the names and layouts in them.

Imports the networks of ``vis2img.models`` and the interpreter of pickles; knows nothing of training, loaders or data.
"""
