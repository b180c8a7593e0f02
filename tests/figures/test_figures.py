import ast
import importlib
import io
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Circle, Rectangle
from matplotlib.text import Text
from PIL import Image

import vae.figures as figures
from vae.figures import canvas
from vae.figures.images import GUTTER

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def pixels_of(figure):
    """The saved PNG, [H, W, 3]."""
    with Image.open(io.BytesIO(figures.png(figure))) as image:
        return np.asarray(image.convert("RGB"))


def find(picture, color):
    """Rows and columns of the pixels of exactly this colour."""
    rows, columns = np.nonzero(np.all(picture == color, axis=-1))
    assert len(rows), f"no pixel is {color}"
    return rows, columns


def paint(color, count=1, height=4, width=4):
    return np.broadcast_to(np.array(color) / 255, (count, height, width, 3))


def texts(figure):
    """Every text on the figure that is not empty."""
    found = figure.findobj(lambda artist: hasattr(artist, "get_text") and artist.get_visible())
    return [artist.get_text() for artist in found if artist.get_text()]


def color_at(axes, row, column):
    """The colour of a picture of tiles where its row and column labels stand."""
    picture = axes.images[0].get_array()
    return tuple(int(c) for c in picture[round(axes.get_yticks()[row]), round(axes.get_xticks()[column])])


def labels_along(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


# Files


def test_a_failed_save_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "samples.png"
    figures.save(figures.samples(paint(RED), "first"), path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        figures.save(figures.samples(paint(BLUE), "second"), path)
    with pytest.raises(OSError, match="disk full"):
        figures.morph_gif(np.concatenate([paint(RED), paint(BLUE)]), tmp_path / "morph.gif")
    assert [p.name for p in tmp_path.iterdir()] == ["samples.png"]
    assert path.read_bytes() == before


def test_a_save_makes_the_folder_and_the_same_picture_is_the_same_file(tmp_path):
    for name in ("a", "b"):
        figures.save(figures.samples(paint(RED, 3), "samples"), tmp_path / "figures" / f"{name}.png")
    first, second = ((tmp_path / "figures" / f"{name}.png").read_bytes() for name in ("a", "b"))
    assert first == second


def test_files_for_a_paper_hold_their_text_as_text_and_no_date(monkeypatch):
    def drawn(day):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(86400 * day))
        return figures.files(figures.kl_per_dimension(np.array([1.0, 0.5]), "a title"))

    found = drawn(day=1)
    assert found == drawn(day=2)
    assert list(found) == ["png", "pdf", "svg"]
    assert found["png"] == figures.png(figures.kl_per_dimension(np.array([1.0, 0.5]), "a title"))
    assert found["pdf"].startswith(b"%PDF")
    assert b"/FontFile2" in found["pdf"]  # TrueType, embedded
    assert b"/Type3" not in found["pdf"]
    assert b">a title</text>" in found["svg"]
    ElementTree.fromstring(found["svg"])


def test_a_picture_ends_in_a_white_margin():
    picture = pixels_of(
        figures.samples(paint(RED, 10), "A title that is far longer than the single row of tiles is wide")
    )
    for edge in (picture[:10], picture[-10:], picture[:, :10], picture[:, -10:]):
        assert np.all(edge == 255)


def test_only_numpy_matplotlib_and_pillow_are_imported():
    for file in Path(figures.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [n.name for n in getattr(node, "names", [])]
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not [n for n in names if n.split(".")[0] in ("jax", "flax", "tensorflow", "absl")]
                assert "matplotlib.pyplot" not in names


# Tiles


@pytest.mark.parametrize(("count", "columns", "padding"), [(6, 3, 1), (7, 3, 2), (1, 1, 0), (2, 5, 1)])
def test_tile_places_image_i_at_row_i_over_columns_and_column_i_mod_columns(count, columns, padding):
    images = np.random.default_rng(0).random((count, 4, 6, 3)).astype(np.float32) * 0.5
    grid = figures.tile(images, columns, padding)
    rows = -(-count // columns)
    assert grid.shape == (rows * (4 + padding) + padding, columns * (6 + padding) + padding, 3)
    rest = np.ones(grid.shape[:2], bool)
    for i, image in enumerate(images):
        top, left = padding + i // columns * (4 + padding), padding + i % columns * (6 + padding)
        np.testing.assert_array_equal(grid[top : top + 4, left : left + 6], image)
        rest[top : top + 4, left : left + 6] = False
    assert np.all(np.isclose(grid[rest], GUTTER).all(-1) | (grid[rest] == 1).all(-1))


def test_tile_frames_images_in_a_colour_that_no_ink_has_and_leaves_empty_cells_white():
    grid = figures.tile(np.zeros((3, 2, 2, 1)), columns=2)
    np.testing.assert_array_equal(grid[4:, 4:], 1)
    frame = np.concatenate([grid[0], grid[:, 0], grid[3], grid[:4, 3]])
    np.testing.assert_allclose(frame, np.broadcast_to(GUTTER, frame.shape), rtol=1e-6)
    assert np.ptp(GUTTER) > 0.2  # neither black, grey nor white


@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (64, 64)])
def test_ink_that_touches_the_border_of_an_image_does_not_run_into_the_next(height, width):
    picture = pixels_of(figures.samples(np.ones((4, height, width, 1)), ""))
    gutter = np.rint(255 * np.array(GUTTER))
    rows = np.flatnonzero(np.all(picture == gutter, axis=-1).sum(1) > picture.shape[1] // 2)
    (ends,) = np.nonzero(np.diff(rows) > 1)
    assert len(ends) == 2  # three gutters around two rows of white images
    assert ends[1] - ends[0] >= 0.05 * (rows[-1] - rows[0]) / 2


@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (6, 10)])
def test_a_pixel_of_an_image_is_a_square_of_the_png(height, width):
    images = np.zeros((5, height, width, 3))
    images[3, 2, 4] = (1, 0, 0)
    rows, columns = find(pixels_of(figures.samples(images, "")), RED)
    assert np.ptp(rows) == np.ptp(columns) >= 2
    assert len(rows) == (np.ptp(rows) + 1) ** 2


@pytest.mark.parametrize(("count", "height", "width"), [(12, 8, 8), (16, 28, 28), (5, 6, 10)])
def test_the_png_holds_the_tiles_without_resampling(count, height, width):
    figure = figures.samples(np.random.default_rng(0).random((count, height, width, 1)) * 0.9, title="")
    picture = pixels_of(figure)
    inked = np.any(picture < 255, axis=-1)
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    inside = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    np.testing.assert_array_equal(inside, figure.axes[0].images[0].get_array())


@pytest.mark.parametrize(
    ("count", "height", "width", "rows", "columns"),
    [(1, 8, 8, 1, 1), (3, 8, 8, 1, 3), (64, 8, 8, 8, 8), (100, 28, 28, 10, 10), (7, 8, 8, 3, 3), (8, 10, 20, 4, 2)],
)
def test_samples_fill_a_near_square_grid(count, height, width, rows, columns):
    picture = figures.samples(np.zeros((count, height, width, 1)), "").axes[0].images[0].get_array()[..., 0]
    across, down = picture[picture.shape[0] // rows // 2], picture[:, picture.shape[1] // columns // 2]
    starts = [np.count_nonzero(np.diff((line == 0).astype(int)) == 1) for line in (across, down)]
    assert starts == [columns, rows]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (64, 64)])
@pytest.mark.parametrize("count", [1, 16, 100])
def test_a_grid_is_neither_tiny_nor_huge(count, height, width):
    figure = figures.samples(np.zeros((count, height, width, 1)), "")
    assert all(0.5 <= inches <= min(8, 1.3 * count**0.5) for inches in figure.get_size_inches())


# Reconstructions


def test_reconstructions_show_original_mean_and_sample_from_top_to_bottom_under_their_index():
    figure = figures.reconstructions(
        paint(RED, 2), paint(GREEN, 2), paint(BLUE, 2), [17, 9123], "Test set", labels=["Bag", "Coat"]
    )
    (axes,) = figure.axes
    assert [color_at(axes, row, 1) for row in range(3)] == [RED, GREEN, BLUE]
    assert labels_along(axes.xaxis) == ["#17\nBag", "#9123\nCoat"]
    assert [label.split()[0] for label in labels_along(axes.yaxis)] == ["original", "mean", "sample"]


@pytest.mark.parametrize("labels", [None, ["Ankle boot"] * 37])
def test_many_reconstructions_wrap_and_every_column_keeps_its_index(labels):
    originals = np.concatenate([paint((5 * i, 255 - 5 * i, 0)) for i in range(37)])
    figure = figures.reconstructions(originals, originals, originals, range(37), "", labels)
    seen = []
    for axes in figure.axes:
        for column, label in enumerate(labels_along(axes.xaxis)):
            i = int(label.split("\n")[0].removeprefix("#"))
            assert color_at(axes, 0, column) == color_at(axes, 2, column) == (5 * i, 255 - 5 * i, 0)
            seen.append(i)
    assert seen == list(range(37))


def test_column_heads_do_not_overlap():
    images = paint(RED, 80, 28, 28)
    figure = figures.reconstructions(images, images, images, range(59000, 59080), "", ["Ankle boot"] * 80)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for axes in figure.axes for label in axes.get_xticklabels()]
    tiles = [axes.get_window_extent() for axes in figure.axes]
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] + tiles if a.overlaps(b)]


# Morphs


def test_morph_runs_left_to_right_between_its_originals():
    steps = np.concatenate([paint((60 * t, 0, 100)) for t in range(4)])
    figure = figures.morph(steps, 3, 1234, "Morph", originals=np.concatenate([paint(GREEN), paint(BLUE)]))
    picture = pixels_of(figure)
    places = [find(picture, color)[1].mean() for color in [GREEN, *((60 * t, 0, 100) for t in range(4)), BLUE]]
    assert places == sorted(places)
    assert {"#3", "#1234", "original", "decoded"} <= set(texts(figure))
    assert texts(figures.morph(steps, 3, 1234, "Morph")).count("#3") == 1


def test_morph_gif_goes_there_and_back(tmp_path):
    steps = np.linspace(0, 1, 5 * 20 * 28).reshape(5, 20, 28, 1)
    figures.morph_gif(steps, tmp_path / "deep" / "morph.gif")
    with Image.open(tmp_path / "deep" / "morph.gif") as gif:
        assert gif.n_frames == 2 * 5 - 2
        assert gif.info["loop"] == 0  # for ever
        frames, durations = [], []
        for k in range(gif.n_frames):
            gif.seek(k)
            frames.append(np.asarray(gif.convert("L")))
            durations.append(gif.info["duration"])
    for k in range(1, 8):
        np.testing.assert_array_equal(frames[k], frames[-k])
    assert durations[0] == durations[4] > max(durations[1], durations[5])
    assert all(50 <= duration <= 84 for duration in durations[1:4])  # 12 to 20 frames a second
    for step, frame in zip(steps, frames, strict=False):
        scale = frame.shape[0] // 20
        np.testing.assert_array_equal(frame, np.kron(np.rint(step[..., 0] * 255), np.ones((scale, scale))))
    assert min(frames[0].shape) >= 200


@pytest.mark.parametrize("size", [(1, 1000), (1000, 1), (1, 3001)])
def test_a_gif_of_long_images_is_no_longer_than_a_page_or_the_images_themselves(tmp_path, size):
    """A GIF of more than 65535 pixels a side cannot be written."""
    figures.morph_gif(np.linspace(0, 1, 2 * math.prod(size)).reshape(2, *size, 1), tmp_path / "morph.gif")
    with Image.open(tmp_path / "morph.gif") as gif:
        assert max(gif.size) == max(3000, *size)
        assert min(gif.size) == 3000 // max(size) or max(size) > 3000


def test_a_still_region_of_a_colour_gif_does_not_flicker(tmp_path):
    steps = np.random.default_rng(0).random((6, 32, 32, 3))
    steps[:, 24:] = steps[0, 24:]
    figures.morph_gif(steps, tmp_path / "morph.gif")
    with Image.open(tmp_path / "morph.gif") as gif:
        still = []
        for k in range(gif.n_frames):
            gif.seek(k)
            still.append(np.asarray(gif.convert("RGB"))[gif.height * 3 // 4 :])
    for other in still[1:]:
        np.testing.assert_array_equal(other, still[0])


# Latent space


def test_traversals_put_dimensions_in_rows_and_values_in_columns():
    colors = [[(80 * d, 60 * t, 40) for t in range(5)] for d in range(3)]
    images = np.array([[paint(color)[0] for color in row] for row in colors])
    figure = figures.traversals(images, [0, 7, 3], np.linspace(-2, 2, 5), "Traversals", kl=[2.5, 1.25, 0.004])
    (axes,) = figure.axes
    assert [[color_at(axes, d, t) for t in range(5)] for d in range(3)] == colors
    assert labels_along(axes.xaxis) == ["−2", "−1", "0", "1", "2"]
    rows = labels_along(axes.yaxis)
    assert [re.sub(r"[${}]", "", row).split()[0] for row in rows] == ["z_1", "z_8", "z_4"]  # counted from 1
    assert ["2.50 nats" in rows[0], "1.25 nats" in rows[1], "0.00 nats" in rows[2]] == [True] * 3


def test_tick_labels_have_the_decimals_they_need_and_no_negative_zero():
    axes = figures.traversals(np.zeros((1, 3, 8, 8, 1)), [0], [-0.5, -1e-9, 0.5], "").axes[0]
    assert labels_along(axes.xaxis) == ["−0.5", "0.0", "0.5"]


@pytest.mark.parametrize("columns", [11, 20, 40])
def test_both_ends_have_a_tick_label_and_labels_do_not_overlap(columns):
    images = np.zeros((2, columns, 28, 28, 1))
    figure = figures.traversals(images, [0, 1], np.linspace(-3, 3, columns), "")
    figure.draw_without_rendering()
    labels = labels_along(figure.axes[0].xaxis)
    assert (labels[0][:2], labels[-1][0]) == ("−3", "3")
    boxes = [t.get_window_extent() for t in figure.axes[0].get_xticklabels() if t.get_text()]
    assert len(boxes) >= 3
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]


def test_manifold_has_z1_to_the_right_and_z2_upwards():
    size = 4
    images = np.zeros((size, size, 5, 5, 3))
    for i in range(size):
        for j in range(size):
            images[i, j] = (i / 5, j / 5, 1)  # red grows with z1, green with z2
    figure = figures.manifold(images, [-1.5, -0.5, 0.5, 1.5], "Manifold")
    picture = pixels_of(figure)

    def place(i, j):
        rows, columns = find(picture, (51 * i, 51 * j, 255))
        return rows.mean(), columns.mean()

    for i in range(size - 1):
        assert place(i + 1, 2)[1] > place(i, 2)[1]
        assert place(i + 1, 2)[0] == place(i, 2)[0]
        assert place(2, i + 1)[0] < place(2, i)[0]
        assert place(2, i + 1)[1] == place(2, i)[1]
    (axes,) = figure.axes
    across, upward = labels_along(axes.xaxis), labels_along(axes.yaxis)
    assert color_at(axes, upward.index("1.5"), across.index("−0.5")) == (51, 153, 255)
    assert [axes.get_xlabel(), axes.get_ylabel()] == ["$z_{1}$", "$z_{2}$"]
    (axes,) = figures.manifold(images, [-1.5, -0.5, 0.5, 1.5], "", (0, 3), "the other 2 are 0").axes
    assert [axes.get_xlabel(), axes.get_ylabel()] == ["$z_{1}$\nthe other 2 are 0", "$z_{4}$"]


def test_scatter_colours_points_by_class_and_names_the_colours():
    rng = np.random.default_rng(0)
    z, labels = rng.normal(size=(500, 4)), rng.integers(0, 10, 500)
    names = [f"class {c}" for c in range(10)]
    axes = figures.latent_scatter(z, labels, "Test set", dimensions=(3, 1), class_names=names).axes[0]
    points = axes.collections[0]
    drawn = {tuple(xy): to_hex(color) for xy, color in zip(points.get_offsets(), points.get_facecolors(), strict=True)}
    legend = axes.get_legend()
    named = dict(zip(names, (to_hex(handle.get_facecolor()) for handle in legend.legend_handles), strict=True))
    assert [text.get_text() for text in legend.get_texts()] == names
    assert len(set(named.values())) == 10
    assert [drawn[tuple(xy)] for xy in z[:, [3, 1]]] == [named[names[label]] for label in labels]
    assert [axes.get_xlabel(), axes.get_ylabel()] == ["$z_{4}$", "$z_{2}$"]


def test_scatter_keeps_the_legend_of_absent_classes_out_and_takes_no_labels():
    z = np.random.default_rng(0).normal(size=(30, 2))
    legend = figures.latent_scatter(z, np.where(np.arange(30) % 2, 7, 2), "").axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["2", "7"]
    assert figures.latent_scatter(z, None, "").axes[0].get_legend() is None


@pytest.mark.parametrize("labels", [np.arange(300) % 11, np.linspace(0, 1, 300)])
def test_scatter_of_many_classes_or_real_labels_has_a_colour_bar_instead_of_a_legend(labels):
    figure = figures.latent_scatter(np.random.default_rng(0).normal(size=(300, 2)), labels, "")
    assert figure.axes[0].get_legend() is None
    assert "label" in texts(figure)
    assert [bool(child.collections) for child in figure.axes[0].child_axes] == [True]


def test_scatter_draws_circles_of_one_and_two_sigma_round():
    z = np.random.default_rng(0).normal(size=(1000, 2)) * (4, 0.2) + (3, 0)
    figure = figures.latent_scatter(z, None, "")
    figure.draw_without_rendering()
    circles = [patch for patch in figure.axes[0].patches if isinstance(patch, Circle)]
    assert sorted(circle.radius for circle in circles) == [1, 2]
    for circle in circles:
        box = circle.get_window_extent()
        np.testing.assert_allclose(box.width, box.height, rtol=1e-6)
        assert figure.axes[0].get_window_extent().containsx(box.x0)


def test_scatter_counts_the_points_that_it_leaves_outside():
    z = np.random.default_rng(0).normal(size=(9999, 2))
    figure = figures.latent_scatter(np.concatenate([z, [[1000, 0]]]), None, "")
    assert figure.axes[0].get_xlim()[1] < 10
    assert "points outside: 1 of 10000" in texts(figure)
    assert not [text for text in texts(figures.latent_scatter(z, None, "")) if "outside" in text]


# Curves and bars


def test_a_terrible_first_epoch_does_not_flatten_a_learning_curve_and_is_told():
    values = -100 + np.linspace(0, 5, 50)
    values[0] = -1e6
    figure = figures.learning_curves({"training": (np.arange(50), values)}, "epoch", "ELBO (nats)", "Curves")
    low, high = figure.axes[0].get_ylim()
    assert low > -120
    assert high > values.max()
    assert "values outside: 1 below, down to −1e+06" in texts(figure)
    assert "training  −95" in texts(figure)


def test_an_ordinary_learning_curve_is_shown_whole():
    values = -100 - 10 * np.exp(-np.arange(20) / 6)
    figure = figures.learning_curves({"training": (np.arange(20), values)}, "epoch", "nats", "")
    low, high = figure.axes[0].get_ylim()
    assert low < values.min() < values.max() < high
    assert not [text for text in texts(figure) if "outside" in text]


def test_learning_curves_mark_the_best_epoch_alone_if_there_is_one():
    curves = {"validation": (np.arange(1, 6), np.array([-5.0, -3, -2, -4, -4]))}
    for best in (None, 3.0):
        (axes,) = figures.learning_curves(curves, "epoch", "nats", "", best).axes
        marked = [line for line in axes.lines if list(line.get_xdata()) == [3.0, 3.0]]
        assert len(marked) == (best is not None)
        assert ("best: 3" in [text.get_text() for text in axes.texts]) == (best is not None)


def test_learning_curves_survive_nan_infinity_and_a_single_point():
    figure = figures.learning_curves(
        {
            "broken": ([1, 2, 3, 4], [-5.0, -4.0, np.nan, np.nan]),
            "endless": ([1, 2, 3], [-np.inf, -3.0, -2.5]),
            "point": ([2], [-3.25]),
            "gone": ([1, 2], [np.nan, np.nan]),
        },
        "epoch",
        "nats",
        "",
    )
    assert {"broken  −4, then NaN", "endless  −2.5", "point  −3.25", "gone  no finite value"} <= set(texts(figure))
    low, high = figure.axes[0].get_ylim()
    assert -6 < low < -5 < -2.5 < high < -2
    figures.png(figure)
    figures.png(figures.learning_curves({"gone": ([1], [np.nan])}, "epoch", "nats", ""))


def test_a_value_between_two_gaps_is_drawn():
    steps, values = np.arange(100), np.full(100, np.nan)
    values[::10] = np.arange(10)
    (axes,) = figures.learning_curves({"validation": (steps, values)}, "step", "nats", "").axes
    marked = {x for line in axes.lines if line.get_marker() not in ("", "None") for x in line.get_xdata()}
    assert marked == set(range(0, 100, 10))


@pytest.mark.parametrize("top", [0, 1])
def test_final_values_do_not_overlap(top):
    curves = {f"seed {i}": ([0, 1], [0, top + 1e-3 * i]) for i in range(8)} | {"last": ([0, 1], [1, 1 - top])}
    figure = figures.learning_curves(curves, "epoch", "nats", "")
    figure.draw_without_rendering()
    boxes = {text.get_text(): text.get_window_extent() for text in figure.axes[0].texts}
    assert len(boxes) == 9
    heights = [box.y0 for name, box in sorted(boxes.items()) if name.startswith("seed")]
    assert heights == sorted(heights)
    assert not [(a, b) for a in boxes.values() for b in boxes.values() if a is not b and a.overlaps(b)]
    frame = figure.axes[0].get_window_extent()
    assert all(frame.y0 - box.height < box.y0 < box.y1 < frame.y1 + box.height for box in boxes.values())


def test_the_path_of_a_controller_shows_each_run_what_it_holds_and_where():
    epochs = np.arange(1, 9)
    kl = {"a": 10 + 4.0 / epochs, "b": np.where(epochs == 3, np.nan, 12.0), "c": np.full(8, np.nan)}
    paths = {name: (epochs, values, values / 100) for name, values in kl.items()}
    figure = figures.controlled(paths, [10, 10.0, 12], ("KL (nats)", "beta"), "Control")
    above, below = figure.axes
    assert [line.get_ydata()[0] for line in above.lines if len(line.get_ydata()) == 2] == [10, 12]
    for axes, scale in ((above, 1), (below, 100)):
        drawn = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 8]
        np.testing.assert_allclose(drawn, [values / scale for values in kl.values()])
    assert {"a  10.5", "a  0.105", "b  12", "c  no finite value", "KL (nats)", "beta"} <= set(texts(figure))
    with pytest.raises(ValueError, match="a has 7 entries; expected 8, one for each of its epochs"):
        figures.controlled({"a": (epochs, kl["a"][1:], kl["a"])}, [10], ("KL", "beta"), "")


@pytest.mark.parametrize("dimensions", [1, 2, 20, 256])
def test_kl_bars_decrease_and_name_their_dimension(dimensions):
    kl = np.random.default_rng(0).permutation(np.linspace(0.0, 3.0, dimensions))
    figure = figures.kl_per_dimension(kl, "KL", active_threshold=1.0)
    bars = figure.axes[0].containers[0].patches
    np.testing.assert_allclose([bar.get_height() for bar in bars], np.sort(kl)[::-1])
    if dimensions <= 20:
        named = [int(label.strip("$z_{}")) - 1 for label in labels_along(figure.axes[0].xaxis)]
        np.testing.assert_array_equal(kl[named], np.sort(kl)[::-1])
    assert any(f"{np.sum(kl > 1)} of {dimensions} active (KL > 1 nats)" in text for text in texts(figure))


def test_inactive_dimensions_lie_on_grey():
    axes = figures.kl_per_dimension([0.0, 2.0, 0.001, 1.0], "").axes[0]
    bars = axes.containers[0].patches
    (grey,) = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch not in bars]
    on_grey = [grey.get_x() <= bar.get_x() for bar in bars]
    assert on_grey == [False, False, True, True]


def test_log_likelihood_is_drawn_against_k_on_a_log_axis_with_its_gains_between():
    values, gains = [-88.0, -87.35, -87.1], [(0.65, 0.04), (0.25, None)]
    axes = figures.log_likelihood_by_num_samples([100, 1000, 5000], values, 0.3, gains, "", "a note").axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[100, -88.0], [1000, -87.35], [5000, -87.1]])
    assert axes.get_xscale() == "log"
    assert labels_along(axes.xaxis) == ["100", "1000", "5000"]
    texts = ["−88.000", "−87.350", "−87.100", "+0.650 ± 0.040", "+0.250", "a note"]
    assert [text.get_text() for text in axes.texts] == texts
    assert [100 < axes.texts[3].xy[0] < 1000, -88.0 < axes.texts[3].xy[1] < -87.35] == [True, True]
    assert "± 0.30 over images" in axes.get_ylabel()


def test_a_gain_of_no_importance_is_flat_and_the_numbers_at_its_axis_are_whole():
    figure = figures.log_likelihood_by_num_samples([100, 1000], [-24.3338, -24.3323], 0.2, [(0.0015, 0.0)], "")
    figure.draw_without_rendering()
    axis = figure.axes[0].yaxis
    assert axis.get_offset_text().get_text() == ""
    shown = [float(text.replace("−", "-")) for text in labels_along(axis) if text]
    assert min(shown) < -24.36
    assert max(shown) > -24.31


def test_a_dollar_sign_in_a_users_words_is_a_dollar_sign():
    figures.png(figures.learning_curves({"$_{$": ([0, 1], [1, 2])}, "step", "nats", "title"))
    figures.png(figures.learning_curves({"name": ([0, 1], [1, 2])}, "step", "nats", "$_{$"))
    figures.png(figures.latent_scatter(np.zeros((3, 2)), [0, 0, 0], "title", class_names=["$_{$"]))
    figures.png(figures.reconstructions(*[paint(RED)] * 3, [0], "title", ["$_{$"]))


# Errors

IMAGES = np.zeros((4, 8, 8, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.samples(IMAGES[0], ""), r"images has shape \(8, 8, 1\); expected \[N, H, W, C\]"),
        (lambda: figures.samples(IMAGES[:0], ""), "none empty"),
        (lambda: figures.samples(IMAGES + 255, ""), r"images has values from 255 to 255; pixels must lie in \[0, 1\]"),
        (lambda: figures.samples(IMAGES - 0.01, ""), "from -0.01 to -0.01"),
        (lambda: figures.samples(IMAGES * np.nan, ""), "images has 256 NaN or infinite values"),
        (lambda: figures.tile(IMAGES, 0), "columns=0"),
        (lambda: figures.reconstructions(IMAGES, IMAGES[:3], IMAGES, range(4), ""), "expected the same"),
        (lambda: figures.reconstructions(IMAGES, IMAGES, IMAGES, [1], ""), "indices has 1 entries; expected 4"),
        (lambda: figures.reconstructions(IMAGES, IMAGES, IMAGES, range(4), "", [1]), "labels has 1 entries"),
        (lambda: figures.morph(IMAGES[:1], 0, 1, ""), "images has 1 step; expected at least 2"),
        (lambda: figures.morph(IMAGES, 0, 1, "", IMAGES), r"originals has shape .*; expected \(2, 8, 8, 1\)"),
        (lambda: figures.morph_gif(IMAGES[:1], "x.gif"), "expected at least 2"),
        (lambda: figures.traversals(IMAGES, [0], [0], ""), r"expected \[D, T, H, W, C\]"),
        (lambda: figures.traversals(IMAGES[None], [0], [0, 1], ""), "values has 2 entries; expected 4"),
        (lambda: figures.manifold(IMAGES[None], [0], ""), "as many rows as columns"),
        (lambda: figures.manifold(IMAGES.reshape(2, 2, 8, 8, 1), [1, 0], ""), "z_values do not increase"),
        (lambda: figures.latent_scatter(np.zeros((3, 2)), None, "", (0, 2)), "expected two from 0 to 1"),
        (lambda: figures.latent_scatter(np.zeros((3, 2)), [0], ""), "labels has 1 entries; expected 3"),
        (lambda: figures.latent_scatter(np.zeros((2, 2)), [0, 5], "", class_names=["a"]), "class_names has 1 entries"),
        (lambda: figures.learning_curves({}, "", "", ""), "curves is empty"),
        (lambda: figures.learning_curves({"a": ([1, 2], [1])}, "", "", ""), "'a' has 1 values; expected 2"),
        (lambda: figures.kl_per_dimension([np.nan, 1], ""), "kl has 1 NaN or infinite values; all must be finite"),
        (lambda: figures.log_likelihood_by_num_samples([0], [1], 1.0, [], ""), "num_samples has 0; expected 1 or more"),
        (lambda: figures.log_likelihood_by_num_samples([1], [1], -1.0, [], ""), "standard_error is -1"),
        (lambda: figures.log_likelihood_bracket([1, 2], [1], [1, 2], ""), "lower has 1 entries; expected 2"),
        (lambda: figures.log_likelihood_bracket([0], [1], [1], ""), "num_temperatures has 0; expected 1 or more"),
        (lambda: figures.save(figures.samples(IMAGES, ""), "x.jpg"), "figures are saved as .png; got 'x.jpg'"),
    ],
)
def test_an_array_that_does_not_fit_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_bracket_is_drawn_in_the_order_of_temperatures_with_both_bounds_named_and_numbered():
    figure = figures.log_likelihood_bracket([100, 10], [-95.0, -120.0], [-94.0, -90.0], "bracket")
    (axes,) = figure.axes
    lines = {line.get_color(): line.get_xydata().tolist() for line in axes.lines}
    assert list(lines.values()) == [[[10, -90], [100, -94]], [[10, -120], [100, -95]]]
    assert {"upper bound", "lower bound", "−95.00", "−120.00", "−94.00", "−90.00", "10", "100"} <= set(texts(figure))
    for text in axes.texts:
        if text.get_text().endswith("bound"):
            name = text.get_text().split()[0]
            assert lines[text.get_color()][0][1] == {"upper": -90, "lower": -120}[name]


def test_rounding_outside_the_unit_interval_is_accepted():
    figures.samples(np.full((1, 4, 4, 1), 1 + 1e-6), "")
    figures.samples(np.full((1, 4, 4, 1), -1e-6), "")


def test_no_matplotlibrc_changes_a_picture_or_starts_latex_and_a_users_settings_stay():
    """One in the working folder is read as matplotlib is imported, and may be a stranger's."""

    def drawn() -> bytes:
        return canvas.png(figures.kl_per_dimension(np.array([1.0, 0.5]), "title"))

    plain = drawn()
    users = {"text.usetex": True, "font.size": 40, "axes.facecolor": "red", "font.family": ["no such font"]}
    with matplotlib.rc_context(users):
        importlib.reload(canvas)
        assert drawn() == plain
        assert {name: matplotlib.rcParams[name] for name in users} == users


def test_every_picture_is_drawn_in_its_own_style():
    for path in Path(canvas.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body if path.name != "canvas.py" else ():
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.returns is not None:
                own = "in_own_style" in map(ast.unparse, node.decorator_list)
                assert own or ast.unparse(node.returns) != "Figure", f"{path.name}: {node.name}"


def test_densities_in_a_title_are_set_as_maths_and_a_dollar_sign_beside_them_is_one():
    (axes,) = figures.samples(paint(RED), "mean of q(z|x), class $5 and $6").axes
    assert axes.get_title(loc="left") == r"mean of $q(z\,|\,x)$, class \$5 and \$6"
    canvas.png(axes.figure)


def test_letters_that_the_font_lacks_are_question_marks():
    figure = figures.kl_per_dimension(np.array([1.0, 0.5]), "图片 — ELBO ±₁ k̂ \ud800")
    canvas.png(figure)  # a warning of matplotlib would be an error here
    assert "?? — ELBO ±₁ k̂ ?" in {text.get_text() for text in figure.findobj(Text)}
