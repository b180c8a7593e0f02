"""Load a folder of pictures."""

import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae import untrusted
from vae.datasets import files
from vae.datasets.dataset import DataError, Loaded, Split
from vae.datasets.npz import MOST_DEFLATED
from vae.datasets.progress import bar
from vae.datasets.resize import resize

# Of files.SUFFIXES; for PostScript, Pillow starts a program.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
# What Pillow's decoders raise for damaged files; each format has its own.
DAMAGE = (
    OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, ArithmeticError, EOFError,
    SyntaxError, RuntimeError, MemoryError, struct.error, zlib.error,
)  # fmt: skip
SPLITS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
GREY_MODES = ("1", "L", "LA")
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
ORIENTATION = 0x112  # in EXIF
# By orientation, how a picture is turned to be seen as it was taken: Pillow's names.
TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip
WHITE, BLACK = 255, 0


def load_folder(folder: Path, image_size: int | None, progress: bool) -> Loaded:
    """Pictures of `folder` and its sub-folders, sorted by path; uint8 with C=1 if all are grey, else C=3.

    Sub-folders are splits if all have names in `SPLITS`, in any case, and one is for training; else all pictures are
    "train". The first folder below a split is the label if all pictures of the split lie in such a folder. Links are
    followed. A picture is turned as its EXIF says, its first frame is used, and what is transparent in it is composed:
    on white, or on black if what can be seen is light. Raises DataError.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", module="PIL"
        )  # what it says of a damaged picture is said by an error, or no matter
        return _load_folder(folder, image_size, progress)


def _load_folder(folder: Path, image_size: int | None, progress: bool) -> Loaded:
    found = files.find(folder)
    paths = {path.relative_to(folder): path for path in found.pictures}
    if not paths:
        passed = f"; passed over: {told}" if (told := files.told(found.passed_over)) else ""
        suffixes = ", ".join(files.SUFFIXES)
        raise DataError(f"{folder} holds no pictures; files that end in {suffixes} are read, sub-folders too{passed}")
    splits, depth = _splits(folder, list(paths))
    survey = _survey(list(paths.values()), image_size)
    labels = _labels(splits, depth)
    transparent, paper = _paper(survey.transparent)
    with bar(f"{folder.name}", len(paths), "pictures", progress) as progress_bar:
        images = {}
        for split, members in splits.items():
            images[split] = np.empty((len(members), *survey.shape), np.uint8)
            for index, path in enumerate(members):
                images[split][index] = _decode(paths[path], survey.shape[-1], image_size, paper)
                progress_bar.update()
    account = [
        f"{len(paths)} pictures used",
        *([f"{found.links} links followed"] if found.links else []),
        *([f"{survey.turned} turned as their EXIF says"] if survey.turned else []),
        *([f"{transparent} with transparency, on {'white' if paper == WHITE else 'black'}"] if transparent else []),
        *([f"the first frame each of {survey.animated}"] if survey.animated else []),
    ]
    passed = files.told(found.passed_over + Counter({"further frames": survey.frames}))
    return Loaded(
        {split: Split(images[split], labels.get(split)) for split in splits},
        f"{', '.join(account)}; passed over: {passed or 'nothing'}",
    )


def _splits(folder: Path, paths: Sequence[Path]) -> tuple[dict[str, list[Path]], int]:
    """The pictures of each split, and how many folders above them say which; DataError if that is not clear."""
    tops = sorted({path.parts[0] for path in paths if len(path.parts) > 1})
    named = {top: SPLITS[top.lower()] for top in tops if top.lower() in SPLITS}
    listed = ", ".join(tops[:20]) + (" …" if len(tops) > 20 else "")
    if not named:
        below = {part for path in paths for part in path.parts[1:-1] if SPLITS.get(part.lower())}
        if "train" in {SPLITS[part.lower()] for part in below} and len(below) > 1:
            inner = next(path.parent for path in paths if below & set(path.parts[1:-1]))
            raise DataError(
                f"{folder} has folders named {', '.join(sorted(below))} below others, as in {inner}; splits come "
                "first: pass the folder that holds them, or rename them if they are classes"
            )
        return {"train": list(paths)}, 0
    if len(named) < len(tops):
        others = [top for top in tops if top not in named]
        some = ", ".join(others[:5]) + (" …" if len(others) > 5 else "")
        raise DataError(
            f"{folder} has {', '.join(named)} beside {some}: splits or "
            "classes? Rename what is a class, or keep only the splits: train, validation and test"
        )
    if "train" not in named.values():
        raise DataError(f"{folder} has the splits {listed}, and none to train on; add a folder train")
    splits = {named[top]: [path for path in paths if path.parts[0] == top] for top in tops}
    stray = len(paths) - sum(map(len, splits.values()))
    if len(splits) < len(tops):
        raise DataError(f"{folder} has two folders for one split among {listed}; move or rename them")
    if stray:
        raise DataError(f"{folder} has {stray} pictures outside its folders {listed}; move or rename them")
    return splits, 1


def _labels(splits: dict[str, list[Path]], depth: int) -> dict[str, np.ndarray]:
    """The class folder of each picture, for each split that has all its pictures in class folders."""
    return {
        split: np.array([path.parts[depth] for path in paths])
        for split, paths in splits.items()
        if all(len(path.parts) > depth + 1 for path in paths)
    }


class _Survey(NamedTuple):
    """What the heads of all files say, before any is decoded."""

    shape: tuple[int, int, int]
    transparent: list[Path]  # those that may have transparent pixels
    turned: int
    animated: int  # pictures of several frames
    frames: int  # all but the first of each


def _survey(paths: Sequence[Path], image_size: int | None) -> _Survey:
    size, grey, largest, transparent, turned, animated, frames = (0, 0), True, (0, 0), [], 0, 0, 0
    for path in paths:
        with _open(path) as picture:
            try:
                turn, count, alpha = _turn(picture), getattr(picture, "n_frames", 1), picture.has_transparency_data
            except DAMAGE as error:
                raise _damaged(path, error) from error
            if picture.mode in DEEP_MODES:
                raise DataError(f"{path} has more than 8 bits per pixel; convert the pictures to 8 bits")
            grey &= picture.mode in GREY_MODES
            seen = (picture.height, picture.width) if turn >= 5 else picture.size
            largest = max(largest, seen, key=np.prod)
            transparent += [path] if alpha else []
            turned, animated, frames = turned + (turn > 1), animated + (count > 1), frames + count - 1
            if image_size is None and size not in ((0, 0), seen):
                raise DataError(
                    f"pictures differ in size: {paths[0]} is {size[0]}×{size[1]}, {path} is {seen[0]}×{seen[1]}; pass "
                    "`image_size=N` to crop and resize all to N×N"
                )
            size = seen
    width, height = (image_size, image_size) if image_size else size
    shape = height, width, 1 if grey else 3
    _check_memory(len(paths), shape, largest, paths[0].parent, image_size, bool(transparent))
    return _Survey(shape, transparent, turned, animated, frames)


def _check_memory(
    num_pictures: int,
    shape: tuple[int, int, int],
    largest: tuple[int, int],
    folder: Path,
    image_size: int | None,
    transparent: bool,
) -> None:
    """Raises DataError if the pictures, by the sizes in their headers, are too large to decode or to keep."""
    channels = shape[-1]
    # Pillow keeps four bytes a pixel, three times where it composes; the picture is copied, and averaged as float64.
    decoded = largest[0] * largest[1] * (12 if transparent else 4) + largest[0] * largest[1] * channels * (
        1 + 8 * bool(image_size)
    )
    try:
        untrusted.check_memory(num_pictures * int(np.prod(shape, dtype=object)) + decoded)
    except ValueError as error:
        width, height = (image_size, image_size) if image_size else largest
        raise DataError(
            f"{num_pictures} pictures of {width}×{height} in {folder}, the largest of them {largest[0]}×{largest[1]}, "
            f"take {error}; " + ("use fewer, or a smaller `image_size`" if image_size else
            "pass `image_size=N` to crop and resize all to N×N")
        ) from error  # fmt: skip


def _paper(paths: Sequence[Path]) -> tuple[int, int]:
    """How many pictures have transparent pixels, and the grey to compose all on, so that what shows stands out."""
    count, light, weight = 0, 0.0, 0.0
    for path in paths:
        with _open(path) as picture:
            try:
                pixels = np.asarray(picture.convert("RGBA"), np.float64)
            except DAMAGE as error:
                raise _damaged(path, error) from error
        grey, alpha = pixels[..., :3].mean(-1), pixels[..., 3]
        count += bool((alpha < 255).any())
        light, weight = light + float((grey * alpha).sum()), weight + float(alpha.sum())
    return count, BLACK if weight and light / weight >= 128 else WHITE


def _decode(path: Path, channels: int, image_size: int | None, paper: int) -> np.ndarray:
    from PIL import Image

    with _open(path) as picture:
        try:
            turn, shown = _turn(picture), picture
            if picture.has_transparency_data:
                ground = Image.new("RGBA", picture.size, (paper, paper, paper, 255))
                shown = Image.alpha_composite(ground, picture.convert("RGBA"))
            shown = shown.convert("L" if channels == 1 else "RGB")
            if turn > 1:
                shown = shown.transpose(Image.Transpose[TURNS[turn]])
            pixels = np.asarray(shown)
        except DAMAGE as error:
            raise _damaged(path, error) from error
    pixels = pixels.reshape(1, *pixels.shape[:2], channels)
    return (resize(pixels, image_size) if image_size else pixels)[0]


def _turn(picture: Any) -> int:
    """The orientation in EXIF, 1 if it is as it should be; Pillow itself turns TIFF. Decodes nothing."""
    from PIL import Image

    if picture.format == "TIFF":
        return 1
    # Not the method of PNG, which decodes the picture to look for EXIF behind it.
    orientation = Image.Image.getexif(picture).get(ORIENTATION, 1)
    return orientation if orientation in TURNS else 1


def _open(path: Path):
    try:
        return open_picture(path)
    except DAMAGE as error:
        if refused := untrusted.of_the_system(error, path):
            raise refused from error
        what = str(error) if str(error).startswith("claims ") else "is not a picture that can be read"
        raise DataError(f"{path} {what}; {', '.join(FORMATS)} are read: replace or remove it") from error


def _damaged(path: Path, error: Exception) -> Exception:
    """What to raise for an error in decoding a picture: of its content, or of the system."""
    if refused := untrusted.of_the_system(error, path):
        return refused
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return DataError(f"{path} is damaged: {reason}; replace or remove it")


def open_picture(file: Path | BytesIO):
    """A Pillow image of one of `FORMATS`, of any size that Pillow takes: who decodes it has checked the memory.

    Raises ValueError if a file claims more than Pillow decodes, or a PNG more than its bytes can hold: Pillow fills
    up what is not there.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(file, formats=FORMATS)
            if picture.format == "TIFF" and isinstance(file, Path):
                # From a file, Pillow maps the pixels into memory: wrongly where EXIF turns the picture by 90 degrees.
                picture.close()
                picture = Image.open(BytesIO(file.read_bytes()), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(f"claims more pixels than Pillow decodes ({error})") from error
    size = file.getbuffer().nbytes if isinstance(file, BytesIO) else file.stat().st_size
    if picture.format == "PNG" and picture.width * picture.height > 8 * MOST_DEFLATED * size:  # 8 pixels in a byte
        picture.close()
        raise ValueError(f"claims {picture.width}×{picture.height} pixels, more than its {size} bytes can hold")
    return picture
