"""Centre-crop and area averaging."""

import numpy as np

AT_ONCE = 256  # images


def area_weights(source: int, target: int) -> np.ndarray:
    """Overlap of `target` equal cells with `source` pixels on one axis: [target, source] integers, rows sum to source.

    Divided by `source` these are the weights of exact area averaging; kept whole, so that sums of uint8 are exact.
    """
    cell = np.arange(target)[:, None] * source
    pixel = np.arange(source)[None, :] * target
    return np.clip(np.minimum(cell + source, pixel + target) - np.maximum(cell, pixel), 0, None)


def centre_crop(images: np.ndarray) -> np.ndarray:
    """[..., H, W, C] -> [..., S, S, C] with S = min(H, W); of an odd margin the larger part goes at the end."""
    height, width = images.shape[-3:-1]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return images[..., top : top + side, left : left + side, :]


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Centre-crop to a square, then average over areas: [N, H, W, C] -> [N, size, size, C] of the same dtype.

    Enlarging repeats pixels (with fractional weights at their borders). Integers are rounded, ties to even.
    """
    images = centre_crop(images)
    side, channels = images.shape[2:]
    if side == size:
        return images
    weights = area_weights(side, size).astype(np.float64)
    resized = np.empty((len(images), size, size, channels), images.dtype)
    for start in range(0, len(images), AT_ONCE):
        block = images[start : start + AT_ONCE].astype(np.float64)
        rows = weights @ block.reshape(len(block), side, side * channels)
        cells = weights @ rows.reshape(len(block), size, side, channels)
        mean = cells / side**2
        resized[start : start + AT_ONCE] = mean if images.dtype.kind == "f" else np.rint(mean)
    return resized
