"""What a trained network sees: a map of its embeddings, its attention, the components of its tokens."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from vis2img.models.vit import ViT
from vis2img.train.evaluate.encoders import NetworkEncoder
from vis2img.train.evaluate.folds import Samples
from vis2img.train.report.embedding_map import NEIGHBOURS, map_figure, umap_points
from vis2img.train.report.token_pictures import attention_figure, token_pca_figure

_SHOWN = 8  # pictures of a figure


def encoder_pictures(encoder: NetworkEncoder, shown: Samples) -> list[tuple[str, Figure]]:
    """Return titles and figures: a map of the embeddings of ``shown``; of a transformer, its attention and tokens."""
    images, label = shown.inputs, shown.label
    of_each = [np.flatnonzero(label == name)[: _SHOWN // 2] for name in np.unique(label)]
    some = images[np.concatenate(of_each)[:_SHOWN]]

    pictures = []
    if len(images) > NEIGHBOURS + 1:
        points = umap_points(encoder.encode(images))
        pictures.append(("Map of the embeddings", map_figure(points, label, thumbnails=images)))
    if isinstance(encoder.model.backbone, ViT):
        pictures.append(("Attention", attention_figure(encoder.model, encoder.variables, some)))
        pictures.append(("Components of tokens", token_pca_figure(encoder.model, encoder.variables, some)))
    return pictures
