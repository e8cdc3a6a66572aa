"""What can be said of an image without the kernel, and whether influential ones differ in it."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def edges(images: UInt8[Tensor, "n ..."]) -> np.ndarray:
    """Mean absolute difference of neighbouring pixels, down and across, of each image."""
    down, across = (images.double().diff(dim=axis).abs() for axis in (1, 2))
    return (down.flatten(1).mean(dim=1) + across.flatten(1).mean(dim=1)).cpu().numpy()


def frame_variance(images: UInt8[Tensor, "n h w 3"]) -> np.ndarray:
    """Variance of the pixels at most four from the border, mean over the channels."""
    frame = torch.ones(images.shape[1:3], dtype=torch.bool, device=images.device)
    frame[4:-4, 4:-4] = False
    return images[:, frame].double().var(dim=1).mean(dim=1).cpu().numpy()


def distance_to_class_mean(X: Float[Tensor, "n d"], labels: Tensor) -> np.ndarray:
    """Distance of the pixels from the mean image of the class, as unit vectors."""
    found = torch.empty_like(X[:, 0])
    for label in labels.unique():
        own = labels == label
        found[own] = (X[own] - X[own].mean(dim=0)).norm(dim=1)
    return found.cpu().numpy()


def tenths(size: np.ndarray, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Indices of the most and of the least influential tenth, for each class."""
    pairs = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        own = own[np.argsort(size[own])]
        count = len(own) // 10
        pairs.append((own[-count:], own[:count]))
    return pairs


def odds_within(labels: np.ndarray, values: np.ndarray, size: np.ndarray) -> float:
    """Probability that one of the most influential tenth of a class exceeds one of the least.

    Ties count half; the mean over classes.
    """
    above = [
        np.sign(values[most][:, None] - values[least]).mean()
        for most, least in tenths(size, labels)
    ]
    return float((1 + np.mean(above)) / 2)


def thumbnail(image: UInt8[Tensor, "..."]) -> str:
    """An image as PNG in text."""
    file = io.BytesIO()
    plt.imsave(file, image.cpu().numpy(), cmap="gray_r" if image.ndim == 2 else None, format="png")
    return base64.b64encode(file.getvalue()).decode()
