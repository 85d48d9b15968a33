"""The study: which augmentation gives the better representation? Its settings, its folder, its work, its picture.

It may import everything of ``vis2img.train``; nothing but the command line may know it.
"""
