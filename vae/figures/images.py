"""Pictures of images: samples, reconstructions, morphs, traversals, manifold. One tile per image, square pixels."""

import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from vae.figures.canvas import (
    DPI,
    LABEL_SIZE,
    TEXT_SIZE,
    Vector,
    check_finite,
    check_images,
    check_length,
    in_own_style,
    latent,
    new_axes,
    new_figure,
    require,
    set_title,
    write,
)

GAP = 28  # pixels between groups of tiles
GUTTER = (0.56, 0.69, 0.83)  # between tiles: a blue that no ink has, black, grey or white
PAGE_WIDTH, PAGE_HEIGHT, MIN_TILE, MAX_TILE = 1400, 1500, 24, 200  # pixels aimed at
LONGEST = 3000  # pixels of a side of all tiles together, at most: larger images are averaged down
CHARACTER = 0.66 * LABEL_SIZE * DPI / 72  # pixels, about, of a character in a label


def tile(images: np.ndarray, columns: int, padding: int = 1) -> np.ndarray:
    """[N, H, W, C] → [rows·(H+p)+p, columns·(W+p)+p, 3]: image i in row i // columns, column i % columns, each framed
    by `padding` pixels of GUTTER; cells without an image are white."""
    images = check_images("images", images)
    require(columns >= 1 and padding >= 0, f"columns={columns}, padding={padding}; expected columns ≥ 1, padding ≥ 0")
    count, height, width, _ = images.shape
    down, right = height + padding, width + padding
    grid = np.ones((-(-count // columns) * down + padding, columns * right + padding, 3), images.dtype)
    for i, image in enumerate(images):
        top, left = i // columns * down, i % columns * right
        grid[top : top + down + padding, left : left + right + padding] = GUTTER
        grid[top + padding : top + down, left + padding : left + right] = image
    return grid


@in_own_style
def samples(images: np.ndarray, title: str) -> Figure:
    """Samples from the prior, [N, H, W, C], in reading order in a near-square grid."""
    images = check_images("images", images)
    count, height, width, _ = images.shape
    square = min(math.ceil(math.sqrt(count * height / width)), count)
    columns = next((c for c in range(square, 2 * square + 1) if count % c == 0), square)  # a full grid if there is one
    figure, _ = _page([images], [columns], title)
    return figure


@in_own_style
def reconstructions(
    originals: np.ndarray,
    means: np.ndarray,
    samples: np.ndarray,
    indices: Vector,
    title: str,
    labels: Vector | None = None,
    original: str = "original",
) -> Figure:
    """Originals x (named `original`) over the mean of p(x|z) over a sample of it, each [N, H, W, C]; columns are headed
    by the position in the data set (`indices`, [N]) and the class (`labels`, [N]), as many side by side as fit."""
    rows = [check_images(n, v) for n, v in (("originals", originals), ("means", means), ("samples", samples))]
    shapes = [row.shape for row in rows]
    require(len(set(shapes)) == 1, f"originals, means and samples have shapes {shapes}; expected the same")
    count = len(rows[0])
    check_length("indices", indices, count, "the originals")
    heads = [f"#{index}" for index in indices]
    if labels is not None:
        check_length("labels", labels, count, "the originals")
        heads = [f"{head}\n{label}" for head, label in zip(heads, labels, strict=True)]
    longest = math.ceil(CHARACTER * max(len(line) for head in heads for line in head.split("\n"))) + 8
    most = min(max(PAGE_WIDTH // longest, 1), 16)
    columns = math.ceil(count / math.ceil(count / most))
    blocks = [slice(start, min(start + columns, count)) for start in range(0, count, columns)]
    groups = [np.concatenate([row[block] for row in rows]) for block in blocks]
    figure, grids = _page(groups, [b.stop - b.start for b in blocks], title, gap=3 * GAP, min_width=longest)
    for grid, block in zip(grids, blocks, strict=True):
        _label_columns(grid, heads[block], "top")
        _label_rows(grid, [original, r"mean of $p(x\,|\,z)$", r"sample of $p(x\,|\,z)$"])
    return figure


@in_own_style
def side_by_side(rows: Mapping[str, np.ndarray], title: str) -> Figure:
    """Images [N, H, W, C] of each name in a row of their own, the same position in a column."""
    checked = [check_images(f"images of {name!r}", images) for name, images in rows.items()]
    shapes = {images.shape for images in checked}
    require(len(shapes) == 1, f"the rows have shapes {sorted(shapes)}; expected at least one row, all of one shape")
    figure, (grid,) = _page([np.concatenate(checked)], [len(checked[0])], title)
    grid.axes.set_yticks(grid.y, list(rows), parse_math=False)
    return figure


@in_own_style
def morph(
    images: np.ndarray, start_index: int, end_index: int, title: str, originals: np.ndarray | None = None,
    original: str = "original",
) -> Figure:  # fmt: skip
    """A strip of decoded steps, [T, H, W, C], T ≥ 2, from image `start_index` of the data set to image `end_index`,
    between those two images themselves (`originals`, [2, H, W, C], named `original`) if given."""
    images = _check_steps(images)
    ends = [f"#{start_index}", *[""] * (len(images) - 2), f"#{end_index}"]
    if originals is None:
        figure, (strip,) = _page([images], [len(images)], title, across=True)
        _label_columns(strip, ends, "top")
        return figure
    originals = check_images("originals", originals)
    expected = (2, *images.shape[1:])
    require(originals.shape == expected, f"originals has shape {originals.shape}; expected {expected}")
    groups = [originals[:1], images, originals[1:]]
    figure, grids = _page(groups, [1, len(images), 1], title, across=True)
    for grid, name in zip(grids, (original, "decoded", original), strict=True):
        grid.axes.set_xlabel(name, fontsize=LABEL_SIZE)
    _label_columns(grids[0], ends[:1], "top")
    _label_columns(grids[2], ends[-1:], "top")
    return figure


def morph_gif(images: np.ndarray, path: str | os.PathLike) -> None:
    """Writes the steps of a morph, [T, H, W, C], as a GIF that runs there and back for ever: 2T − 2 frames, 60 ms
    each with a rest at both ends. Small images are enlarged, to a shorter side of 200 pixels or a longer one of
    `LONGEST`. Whole or not at all; makes the folder."""
    images = _check_steps(images)
    short, long = sorted(images.shape[1:3])
    pixels, scale = _bytes(images), max(min(math.ceil(200 / short), LONGEST // long), 1)
    if images.shape[-1] == 1:
        steps = [Image.fromarray(step[..., 0]) for step in pixels]  # 256 greys are exact
    else:
        # One palette for all frames, and no dithering: a frame's own would flicker.
        palette = Image.fromarray(pixels.reshape(-1, *pixels.shape[2:])).quantize(256)
        steps = [Image.fromarray(step).quantize(palette=palette, dither=Image.Dither.NONE) for step in pixels]
    steps = [step.resize((step.width * scale, step.height * scale), Image.Resampling.NEAREST) for step in steps]
    milliseconds = [600, *[60] * (len(steps) - 2), 600, *[60] * (len(steps) - 2)]
    frames = steps + steps[-2:0:-1]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    write(path, buffer.getvalue())


@in_own_style
def traversals(
    images: np.ndarray,
    dimensions: Vector,
    values: Vector,
    title: str,
    kl: Vector | None = None,
) -> Figure:
    """One latent dimension moved at a time, [D, T, H, W, C]: row d decodes z[dimensions[d]] = values[0] … values[T−1].
    `kl`, [D] in nats, is written beside the rows."""
    images = check_images("images", images, "D T H W C")
    values = check_finite("values", values, "T")
    check_length("dimensions", dimensions, images.shape[0], "the rows of images")
    check_length("values", values, images.shape[1], "the columns of images")
    rows = [latent(int(d)) for d in dimensions]
    if kl is not None:
        check_length("kl", kl, len(rows), "the rows of images")
        rows = [f"{row}  ({k:.2f} nats)" for row, k in zip(rows, check_finite("kl", kl, "D"), strict=True)]
    figure, (grid,) = _page([images.reshape(-1, *images.shape[2:])], [len(values)], title)
    _label_columns(grid, _ticks(values, grid.width), "bottom")
    _label_rows(grid, rows)
    grid.axes.set_xlabel(r"value of $z_i$", fontsize=TEXT_SIZE)
    return figure


@in_own_style
def manifold(
    images: np.ndarray, z_values: Vector, title: str, dimensions: tuple[int, int] = (0, 1), others: str = ""
) -> Figure:
    """Two latent dimensions decoded on a grid, [G, G, H, W, C]: images[i, j] is at z_values[i] in dimensions[0] and at
    z_values[j] in dimensions[1] (`indexing="ij"`), with z_values [G] increasing to the right and upwards. `others` says
    what the other dimensions are."""
    images = check_images("images", images, "G G H W C")
    z_values = check_finite("z_values", z_values, "G")
    require(images.shape[0] == images.shape[1], f"images has shape {images.shape}; expected as many rows as columns")
    check_length("z_values", z_values, len(images), "the rows of images")
    require(np.all(np.diff(z_values) > 0), "z_values do not increase")
    from_the_top = images.swapaxes(0, 1)[::-1]
    figure, (grid,) = _page([from_the_top.reshape(-1, *images.shape[2:])], [len(images)], title)
    ticks = _ticks(z_values, grid.width)
    _label_columns(grid, ticks, "bottom")
    _label_rows(grid, ticks[::-1])
    grid.axes.set_xlabel(latent(dimensions[0]) + (f"\n{others}" if others else ""), fontsize=TEXT_SIZE)
    grid.axes.set_ylabel(latent(dimensions[1]), fontsize=TEXT_SIZE)
    return figure


class _Grid(NamedTuple):
    """Tiles on a page, in its pixels: centres `x` of the columns and `y` of the rows, width of a column."""

    axes: Axes
    x: np.ndarray
    y: np.ndarray
    width: int


def _page(
    groups: Sequence[np.ndarray],
    columns: Sequence[int],
    title: str,
    gap: int = GAP,
    across: bool = False,
    min_width: int = MIN_TILE,
) -> tuple[Figure, list[_Grid]]:
    """Groups of images, each tiled in so many columns, one below the other or side by side (`across`)."""
    rows = [math.ceil(len(group) / c) for group, c in zip(groups, columns, strict=True)]
    total = (max(rows), sum(columns)) if across else (sum(rows), max(columns))
    most = [max(1, LONGEST // count) for count in total]
    groups = [
        _averaged(group, *(math.ceil(n / m) for n, m in zip(group.shape[1:3], most, strict=True))) for group in groups
    ]
    height, width = groups[0].shape[1:3]
    scale = min(PAGE_HEIGHT // (total[0] * height), PAGE_WIDTH // (total[1] * width), MAX_TILE // max(height, width))
    scale = max(scale, math.ceil(MIN_TILE / height), math.ceil(min_width / width))
    # A pixel is a square, except of images so long that another side would be.
    down, right = (max(1, min(scale, m // n)) for n, m in zip((height, width), most, strict=True))
    side = min(down * height, right * width)
    padding = max(4 if side >= MIN_TILE else 2, side // 14)
    # Magnified here by a whole number, so that a pixel of an image is a rectangle of pixels of the picture.
    big = [group.repeat(down, axis=1).repeat(right, axis=2) for group in groups]
    pictures = [_bytes(tile(group, c, padding)) for group, c in zip(big, columns, strict=True)]
    heights, widths = zip(*(picture.shape[:2] for picture in pictures), strict=True)
    spacing = gap * (len(pictures) - 1)
    page = (sum(widths) + spacing, max(heights)) if across else (max(widths), sum(heights) + spacing)
    figure, grids, left, top = new_figure(*page), [], 0, 0
    for picture, r, c in zip(pictures, rows, columns, strict=True):
        axes = new_axes(figure, left, top, picture.shape[1], picture.shape[0])
        axes.spines[:].set_visible(False)
        axes.imshow(picture, interpolation="nearest", aspect="equal")
        axes.set(xticks=[], yticks=[])
        steps = width * right + padding, height * down + padding
        x, y = (padding / 2 - 0.5 + (np.arange(n) + 0.5) * step for n, step in zip((c, r), steps, strict=True))
        grids.append(_Grid(axes, x, y, steps[0]))
        left, top = (left + picture.shape[1] + gap, 0) if across else (0, top + picture.shape[0] + gap)
    set_title(grids[0].axes, title)
    return figure, grids


def _averaged(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """[N, H, W, C] with blocks of down × right pixels averaged; those at the lower and right edge may be smaller."""
    for axis, size in ((1, down), (2, right)):
        if size > 1:
            starts = np.arange(0, images.shape[axis], size)
            counts = np.diff(np.append(starts, images.shape[axis])).astype(np.float32)
            shape = [-1 if one == axis else 1 for one in range(4)]
            images = np.add.reduceat(images, starts, axis=axis) / counts.reshape(shape)
    return images


def _label_columns(grid: _Grid, labels: Sequence[str], side: Literal["top", "bottom"]) -> None:
    grid.axes.xaxis.set_ticks_position(side)
    grid.axes.set_xticks(grid.x, labels, parse_math=False)
    grid.axes.tick_params(axis="x", length=0)


def _label_rows(grid: _Grid, labels: Sequence[str]) -> None:
    grid.axes.set_yticks(grid.y, labels)


def _ticks(values: np.ndarray, width: int) -> list[str]:
    """Labels with as few decimals as `values` need; empty where tiles so many pixels wide leave no room for one."""
    decimals = next((d for d in (0, 1) if np.allclose(values, np.round(values, d), atol=1e-6)), 2)
    # Plus zero, so that −0.001 is not labelled −0.00.
    labels = [f"{value:.{decimals}f}".replace("-", "−") for value in np.round(values, decimals) + 0.0]
    need = math.ceil((max(map(len, labels)) + 1) * CHARACTER / width)
    last = len(values) - 1
    # Evenly spaced if both ends are labelled then, otherwise with a gap before the last.
    step = next((n for n in range(need, 2 * need + 1) if last % n == 0), need)
    return [label if i == last or (i % step == 0 and i + need <= last) else "" for i, label in enumerate(labels)]


def _check_steps(images: np.ndarray) -> np.ndarray:
    images = check_images("images", images, "T H W C")
    require(len(images) >= 2, f"images has {len(images)} step; expected at least 2")
    return images


def _bytes(images: np.ndarray) -> np.ndarray:
    """[…, H, W, C] in [0, 1] → […, H, W, 3] as uint8."""
    return np.broadcast_to(np.rint(images * 255).astype(np.uint8), (*images.shape[:-1], 3))
