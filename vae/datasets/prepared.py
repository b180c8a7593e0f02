"""Any TFDS data set that is already prepared in array_record format."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vae import untrusted
from vae.datasets.arrays import as_images
from vae.datasets.dataset import DataError, Loaded, Split
from vae.datasets.labels import as_labels
from vae.datasets.pictures import open_picture
from vae.datasets.progress import bar
from vae.datasets.resize import resize

SPLITS = ("train", "validation", "test")
INFO, FEATURES = "dataset_info.json", "features.json"
# Of tfds.features: TFDS imports the module of any other class that the file names, and so runs it.
CLASSES = ("FeaturesDict", "Image", "LabeledImage", "ClassLabel", "Tensor", "Scalar", "Text", "Sequence", "BBoxFeature")
CLASS_KEYS = ("pythonClassName", "python_class_name", "type")  # as its versions write them
NESTED_KEYS = ("json", "content")  # JSON in a text
HEADS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # PNG and JPEG; for PostScript, Pillow starts a program


def homes(data_dir: Path) -> list[Path]:
    """The folders that are searched for prepared data sets: `data_dir`, and the default one of TFDS."""
    # Without a home folder there is none of that name, and that is all.
    return [data_dir, Path(os.path.expanduser(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")))]


def names(data_dir: Path) -> list[str]:
    """The names of the prepared data sets."""
    folders = (folder for home in homes(data_dir) if home.is_dir() for folder in home.iterdir() if folder.is_dir())
    return sorted({folder.name for folder in folders if _versions(folder)})


def find(folder: Path) -> Path | None:
    """The folder with the data: `folder` or its newest version. Raises DataError if it has several configurations."""
    found = _versions(folder)
    if len({path.parent for path in found}) > 1:
        raise DataError(f"{folder} has several configurations; name one of: {', '.join(sorted(map(str, found)))}")
    return max(found, key=_version, default=None)


def find_by_name(name: str, data_dir: Path) -> Path | None:
    """As `find`, for `name`, `name/config` or either with `:version`."""
    return next(filter(None, (find(home / name.replace(":", "/")) for home in homes(data_dir))), None)


def load_prepared(folder: Path, image_size: int | None, progress: bool) -> Loaded:
    """The splits train, validation and test, if they exist.

    Of each the feature `image` [H, W, C], and if they exist `label`, and `factors` [F] as a named data set has them.
    """
    from vae.datasets.builder import quiet

    images, labels, factors = {}, {}, {}
    with quiet(progress):
        builder = _open(folder)
        for split in filter(builder.info.splits.__contains__, SPLITS):
            where = f"{folder} {split}"
            blocks = _blocks(builder, split, where, image_size, progress)
            images[where], labels[split], factors[split] = _stack(
                blocks, builder.info.splits[split].num_examples, where
            )
        passed_over = sorted({*builder.info.splits} - {*SPLITS})
    splits = {
        split: Split(
            checked,
            as_labels(np.array(labels[split]), len(checked), f"{folder} {split} label") if labels[split] else None,
            np.stack(factors[split]) if factors[split] else None,
        )
        for split, checked in zip(labels, as_images(images), strict=True)
    }
    count = sum(len(split.images) for split in splits.values())
    used = f"{count} images used, of the splits {', '.join(splits)} of {folder}"
    return Loaded(splits, f"{used}; passed over: {', '.join(passed_over) or 'nothing'}")


def _open(folder: Path) -> Any:
    """The TFDS builder of a folder; raises DataError if it lacks something that is needed."""
    from vae.datasets.builder import tfds

    check_classes(folder)
    try:
        builder: Any = tfds.builder_from_directory(folder)
    except Exception as error:  # TFDS raises whatever its files make it raise
        if refused := untrusted.of_the_system(error, folder):
            raise refused from error
        raise DataError(f"{folder} cannot be read by TFDS: {_first_line(error)}") from error
    file_format = getattr(builder.info.file_format, "value", None)
    if file_format != "array_record":
        raise DataError(f"{folder} is prepared as {file_format}; prepare it with file_format='array_record'")
    if "image" not in builder.info.features:
        raise DataError(f"{folder} has no feature 'image'; its features are: {', '.join(builder.info.features)}")
    if "train" not in builder.info.splits:
        raise DataError(f"{folder} has no split 'train'; its splits are: {', '.join(builder.info.splits)}")
    return builder


def check_classes(folder: Path) -> None:
    """Raises DataError if features.json names a class that is not one of `CLASSES`."""
    from vae.datasets.builder import tfds

    known = [getattr(tfds.features, name) for name in CLASSES]
    admitted = {f"{one.__module__}.{one.__name__}" for one in known} | {name for one in known for name in one.ALIASES}
    path = folder / FEATURES
    try:
        left: list[Any] = [untrusted.parse_object(path.read_bytes())]
        while left:
            value = left.pop()
            for key, inner in value.items() if isinstance(value, dict) else ():
                if key in CLASS_KEYS and isinstance(inner, str) and inner not in admitted:
                    raise DataError(
                        f"{path} names the feature class {inner[:100]!r}, whose code is not run; a prepared data set "
                        f"may have {', '.join(CLASSES)}: prepare it with those of tfds.features"
                    )
                left.append(untrusted.parse_json(inner) if key in NESTED_KEYS and isinstance(inner, str) else inner)
            left += value if isinstance(value, list) else []
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; prepare the data set again") from error
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}; prepare the data set again") from error


def _versions(folder: Path) -> list[Path]:
    """Folders with data: `folder` itself, its versions, or the versions of its configurations."""
    if (folder / INFO).is_file():
        return [folder]
    found = [path.parent for pattern in ("*", "*/*") for path in folder.glob(f"{pattern}/{INFO}")]
    return [path for path in found if not path.name.startswith("incomplete.")]  # a killed preparation's


def _version(folder: Path) -> tuple[int, ...]:
    parts = folder.name.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()


def _blocks(builder: Any, split: str, where: str, image_size: int | None, progress: bool) -> Iterator[list[dict]]:
    """Image and label of the examples, by blocks, as reading them one by one is five times slower."""
    from vae.datasets.builder import tfds

    try:
        source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        if (stored := _num_stored(builder, split)) != len(source):
            raise ValueError(f"{INFO} says {len(source)} images, and its files hold {stored}")
        decode = _decoder(builder.info.features, len(source), where, image_size)
        with bar(f"{builder.name} {split}", len(source), "images", progress) as progress_bar:
            for start in range(0, len(source), 1024):
                records = source.__getitems__(range(start, min(start + 1024, len(source))))
                block = [decode(record) for record in records]
                if any(example["image"] is None for example in block):  # how the reader gives what was cut off
                    raise EOFError("images are missing")
                progress_bar.update(len(block))
                yield block
    except (DataError, MemoryError):
        raise
    except Exception as error:  # the reader's errors are of many types
        if refused := untrusted.of_the_system(error, Path(builder.data_dir)):
            raise refused from error
        raise DataError(f"{where} is damaged: {_first_line(error)}; delete the folder and prepare it again") from error


def _num_stored(builder: Any, split: str) -> int:
    """How many examples the files of a split hold: TFDS believes what is written of them, and reads no more."""
    from array_record.python.array_record_module import ArrayRecordReader

    count = 0
    for path in builder.info.splits[split].filepaths:
        with contextlib.closing(ArrayRecordReader(str(path))) as reader:
            count += reader.num_records()
    return count


def _decoder(every: Any, num_examples: int, where: str, image_size: int | None) -> Callable[[bytes], dict[str, Any]]:
    """Makes a record the arrays of an example, with `every` tfds.features; heads of pictures are checked first."""
    from vae.datasets.builder import tfds

    # What is not read is not decoded.
    read = ["image", *(["label"] if "label" in every else []), *(["factors"] if _has_factors(every) else [])]
    features: Any = tfds.features.FeaturesDict({name: every[name] for name in read})
    are_pictures = isinstance(features["image"], tfds.features.Image)
    decoders = {"image": tfds.decode.SkipDecoding()} if are_pictures else None
    checked: set[tuple[int, ...]] = set()

    def decode(record: bytes) -> dict[str, Any]:
        example: Any = features.deserialize_example_np(record, decoders=decoders)
        image = example["image"]
        if image is not None and are_pictures:
            if (shape := _claimed_shape(image)) not in checked:
                _check_memory(num_examples, shape, where, image_size)
                checked.add(shape)
            image = features["image"].decode_example_np(image)
        if image is not None and image_size and np.ndim(image) == 3:
            image = resize(np.asarray(image)[None], image_size)[0]
        return example | {"image": image}

    return decode


def _has_factors(every: Any) -> bool:
    if "factors" not in every:
        return False
    shape = every["factors"].shape
    return len(shape) == 1 and shape[0] is not None and every["factors"].np_dtype == np.int32


def _claimed_shape(content: bytes) -> tuple[int, int, int]:
    """Height, width and channels in the head of a picture; ValueError if it is neither PNG nor JPEG."""
    if not bytes(content[: len(HEADS[0])]).startswith(HEADS):
        raise ValueError("a picture in it is neither PNG nor JPEG")
    with open_picture(io.BytesIO(content)) as picture:
        return picture.height, picture.width, len(picture.getbands())


def _check_memory(num_pictures: int, shape: tuple[int, int, int], where: str, image_size: int | None) -> None:
    """Raises DataError if so many pictures are too large to decode or to keep."""
    height, width, channels = shape
    kept = (image_size or height) * (image_size or width) * channels
    # As a list and as one array; one of them is decoded, and averaged as float64.
    try:
        untrusted.check_memory(2 * num_pictures * kept + height * width * channels * (9 if image_size else 1))
    except ValueError as error:
        raise DataError(
            f"{where}: {num_pictures} pictures, one of them of {width}×{height}, take {error}; "
            + ("use a smaller `image_size`" if image_size else "pass `image_size=N` to crop and resize all to N×N")
        ) from error


def _stack(blocks: Iterator[list[dict]], num_examples: int, where: str) -> tuple[np.ndarray, list, list]:
    """Images [N, H, W, C], and the labels and factors of all; empty if there are none."""
    images, labels, factors, count = np.empty(0), [], [], 0
    for block in blocks:
        for example in block:
            image = np.asarray(example["image"])
            if count == 0:
                images = np.empty((num_examples, *image.shape), image.dtype)
            if images.shape[1:] != image.shape:
                raise DataError(
                    f"{where} has images of {images.shape[1:]} and {image.shape}; "
                    "pass `image_size=N` to crop and resize all to N×N"
                )
            images[count] = image
            count += 1
        labels += [example["label"] for example in block if "label" in example]
        factors += [example["factors"] for example in block if "factors" in example]
    if not count:
        raise DataError(f"{where} is empty")
    return images, labels, factors


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
