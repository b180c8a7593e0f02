"""What all pictures share: palette, type, axes, checks of arrays, and files that are written whole or not at all."""

import contextlib
import functools
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox, ScaledTranslation

from vae import durable

Vector = Sequence | np.ndarray  # a list or an array
P = ParamSpec("P")
T = TypeVar("T")

DPI = 200
TITLE_SIZE, TEXT_SIZE, LABEL_SIZE = 10, 8.5, 7  # points
NOTE = (0, -32)  # points from the right end of the axes to their small print
INK, MUTED, RULE = "#222222", "#777777", "#d9d9d9"
# After Paul Tol's "muted" scheme for colour-blind readers; sand and cyan darkened for thin lines, grey as the tenth.
PALETTE = (
    "#332288",
    "#cc6677",
    "#117733",
    "#ddaa33",
    "#66bbee",
    "#882255",
    "#44aa99",
    "#999933",
    "#aa4499",
    "#555555",
)
# What a file would say of the day and of matplotlib's version: without it the same picture is the same file.
UNDATED = {"png": ("Software",), "pdf": ("Creator", "Producer", "CreationDate"), "svg": ("Creator", "Date")}
# Text stays text, in a PDF in TrueType fonts, which publishers want; what SVG names its parts is no random number.
# The numbers at an axis are whole: none has to be added to them.
OWN: dict[Any, Any] = {
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "vae",
    "axes.formatter.useoffset": False,
}


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """matplotlib's default settings; afterwards the user's own again.

    Pictures are the same under any matplotlibrc. One in the working folder may be a stranger's, and could start latex.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(OWN)
        yield


def in_own_style(draw: Callable[P, T]) -> Callable[P, T]:
    """`draw` with matplotlib's default settings: every function that makes a figure, or a file of one."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> T:
        with own_style():
            return draw(*args, **kwargs)

    return styled


def new_axes(figure: Figure, left: int, top: int, width: int, height: int) -> Axes:
    """Axes at a rectangle of the figure, in pixels from its top left corner."""
    page_width, page_height = figure.get_size_inches() * DPI
    rect = (left / page_width, 1 - (top + height) / page_height, width / page_width, height / page_height)
    axes = figure.add_axes(rect)
    axes.tick_params(length=0, labelsize=LABEL_SIZE, labelcolor=INK, pad=3)
    return axes


def new_figure(width: int, height: int) -> Figure:
    """An empty white page of width × height pixels."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def new_chart(title: str, x_label: str, y_label: str, width: int = 1100, height: int = 700) -> tuple[Figure, Axes]:
    """A page with one pair of axes, its size in pixels without the labels, in the style of every chart."""
    figure = new_figure(width, height)
    axes = new_axes(figure, 0, 0, width, height)
    style_chart(axes, title, x_label, y_label)
    return figure, axes


def style_chart(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=MUTED, linewidth=0.7)
    axes.tick_params(length=3, width=0.7, color=MUTED)
    axes.grid(color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_xlabel(x_label, fontsize=TEXT_SIZE, color=INK)
    axes.set_ylabel(y_label, fontsize=TEXT_SIZE, color=INK)
    set_title(axes, title)


def set_title(axes: Axes, title: str) -> None:
    """A title, in which q(z|x) and p(x|z) are set as maths."""
    style: dict[str, Any] = {"loc": "left", "pad": 8, "fontsize": TITLE_SIZE, "fontweight": "bold", "color": INK}
    densities = [one for one in ("q(z|x)", "p(x|z)") if one in title]
    # A dollar sign in a user's title is a dollar sign.
    shown = title.replace("$", r"\$") if densities else title
    for one in densities:
        shown = shown.replace(one, f"${one}$".replace("|", r"\,|\,"))
    axes.set_title(shown, parse_math=bool(densities), **style)


def below_right(axes: Axes, text: str) -> None:
    """Small print below the right end of the axes."""
    note = axes.annotate(text, (1, 0), NOTE, "axes fraction", "offset points", ha="right", va="top")
    note.set(fontsize=LABEL_SIZE, color=MUTED, parse_math=False)


def legend_below(axes: Axes) -> None:
    """The legend of a chart below it and below its small print, in as many columns as are no wider than the axes.

    So the axes keep their share of the picture, however many and long the names are.
    """
    noted = any(isinstance(text, Annotation) and text.xyann == NOTE for text in axes.texts)
    below = ScaledTranslation(0, -(48 if noted else 34) / 72, axes.figure.dpi_scale_trans)
    where = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": axes.transAxes + below}
    style = {"frameon": False, "fontsize": TEXT_SIZE, "columnspacing": 1.4, "borderpad": 0, "borderaxespad": 0}
    for columns in (4, 3, 2, 1):
        legend = axes.legend(**where, **style, ncols=columns)
        for text in legend.get_texts():
            text.set(parse_math=False, color=INK)
        if legend.get_window_extent().width <= axes.get_window_extent().width:
            return


def latent(dimension: int) -> str:
    """The label of latent dimension `dimension` (from 0): z₁, z₂, …"""
    return f"$z_{{{dimension + 1}}}$"


def number(value: float, digits: int = 5) -> str:
    return f"{value:.{digits}g}".replace("-", "−")


def mean_and_error(scores: Vector) -> tuple[float, float]:
    """Mean and standard error of the finite scores; NaN for the mean of none, and for the error of fewer than two."""
    finite = np.asarray(scores, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if len(finite) == 0:
        return float("nan"), float("nan")
    error = finite.std(ddof=1) / np.sqrt(len(finite)) if len(finite) > 1 else float("nan")
    return float(finite.mean()), float(error)


def require(condition: bool | np.bool_, message: str) -> None:
    if not condition:
        raise ValueError(message)


def check_images(name: str, images: np.ndarray, layout: str = "N H W C") -> np.ndarray:
    """`images` as float32; ValueError unless its axes are those of `layout` and pixels lie in [0, 1].

    Channels that are neither one nor three have no colours: they are put side by side, in grey.
    """
    images = np.asarray(images, dtype=np.float32)
    fits = images.ndim == len(layout.split()) and images.size > 0
    require(fits, f"{name} has shape {images.shape}; expected [{layout.replace(' ', ', ')}], none empty")
    if images.shape[-1] not in (1, 3):
        images = np.moveaxis(images, -1, -2).reshape(*images.shape[:-2], -1, 1)
    return np.clip(check_range(name, images, -1e-3, 1 + 1e-3, "pixels must lie in [0, 1]"), 0, 1)


def check_finite(name: str, values: Vector, layout: str) -> np.ndarray:
    """`values` as float64; ValueError unless its axes are those of `layout` and all numbers are finite."""
    array = np.asarray(values, dtype=np.float64)
    fits = array.ndim == len(layout.split()) and array.size > 0
    require(fits, f"{name} has shape {array.shape}; expected [{layout.replace(' ', ', ')}], none empty")
    return check_range(name, array, -math.inf, math.inf, "all must be finite")


def check_range(name: str, values: np.ndarray, low: float, high: float, rule: str) -> np.ndarray:
    bad = np.count_nonzero(~np.isfinite(values))
    require(bad == 0, f"{name} has {bad} NaN or infinite values; {rule}")
    least, most = values.min(), values.max()
    require(low <= least and most <= high, f"{name} has values from {least:.4g} to {most:.4g}; {rule}")
    return values


def check_length(name: str, values: Vector, length: int, of: str) -> None:
    require(len(values) == length, f"{name} has {len(values)} entries; expected {length}, one for each of {of}")


@in_own_style
def png(figure: Figure) -> bytes:
    """The figure as a PNG file, cropped to its content with a margin; ? for a letter that its font lacks."""
    return _file(figure, "png")


@in_own_style
def files(figure: Figure) -> dict[str, bytes]:
    """The figure as `png`, and for a paper as `pdf` and `svg` files, whose text is text and can be edited."""
    return {suffix: _file(figure, suffix) for suffix in UNDATED}


def _file(figure: Figure, suffix: str) -> bytes:
    for text in figure.findobj(Text):
        text.set_text(drawable(text.get_text()))
    content = figure.get_tightbbox().padded(0.12)
    # Whole pixels, so that image tiles are written as they are and not resampled.
    corners = np.concatenate([np.floor(content.min * DPI), np.ceil(content.max * DPI)]) / DPI
    buffer = io.BytesIO()
    bbox = Bbox.from_extents(*corners)
    figure.savefig(buffer, format=suffix, dpi=DPI, bbox_inches=bbox, metadata=dict.fromkeys(UNDATED[suffix]))
    return buffer.getvalue()


def drawable(text: str) -> str:
    """`text` with ? for each letter that matplotlib's own font lacks, such as a Chinese one."""
    if text.isascii():
        return text
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return "".join(c if c.isspace() or font.get_char_index(ord(c)) else "?" for c in text)


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes the figure as a PNG file, whole or not at all; makes the folder."""
    require(Path(path).suffix.lower() == ".png", f"figures are saved as .png; got {os.fspath(path)!r}")
    write(path, png(figure))


def write(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file, whole or not at all; makes the folder."""
    durable.make_folder(Path(path).parent)
    durable.write(path, content)
