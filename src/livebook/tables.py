"""A user's own data, read and checked: a table, arrays or a folder of images.

Whatever is wrong with them is one sentence (``ValueError``), and whatever was changed is a notice.
"""

import csv
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from . import profiles

FEWEST = 10  # rows with a label
SEPARATORS = ",;\t|"
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif"}
SIDE = 32  # pixels, of a picture that is a point


@dataclass(frozen=True)
class Table:
    """What a file holds: features (a frame, or images), labels, and where each row stands."""

    features: pd.DataFrame | np.ndarray
    labels: pd.Series
    places: list[str]  # "line 17", "row 3" or the name of a picture
    pictures: np.ndarray | None = None  # (n, h, w) or (n, h, w, 3), bytes
    notices: tuple[str, ...] = ()
    lines: list[int] | None = None  # of a CSV file


def read(path: Path, label: str | None = None, fewest: int = FEWEST) -> Table:
    """The table in a CSV file, an npz file or a folder with one folder of pictures per class.

    ``label`` names the column of labels of a CSV file, the last one if left out. Rows without a
    label are left out, with a notice.
    """
    if not path.exists():
        raise ValueError(f"{path}: expected a table, got no such file")
    if path.is_dir():
        table = _folder(path)
    elif path.suffix.lower() == ".npz":
        table = _arrays(path)
    else:
        table = _csv(path, label)
    table = _labelled(table)
    count, expected = len(table.labels), f"at least {fewest} rows with a label"
    if count < fewest:
        raise ValueError(f"{path}: expected {expected}, got {count}")
    return table


def _csv(path: Path, label: str | None) -> Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            sample = file.readline()
            separator = max(SEPARATORS, key=sample.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=separator)
            before, lines = 0, []
            for row in reader:
                if row:
                    lines.append(before + 1)
                before = reader.line_num
        frame = pd.read_csv(path, sep=separator, encoding="utf-8-sig", low_memory=False)
    except OSError as error:
        raise ValueError(f"{path}: expected a table, got {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected a table in UTF-8, got {error.reason}") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error, ValueError) as error:
        reason = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
        raise ValueError(f"{path}: expected a table with one header, got {reason}") from error
    columns = [str(column) for column in frame.columns]
    if len(columns) < 2:
        raise ValueError(
            f"{path}: expected columns with features and one with labels, got {len(columns)} column"
        )
    if not isinstance(frame.index, pd.RangeIndex):
        raise ValueError(f"{path}: expected as many names as columns, got rows that are longer")
    frame.columns = columns
    if label is None:
        label = columns[-1]
    profiles.known(f"{path}: LABEL", label, columns)
    numbers = lines[1:] if len(lines) == len(frame) + 1 else list(range(2, len(frame) + 2))
    places = [f"line {number}" for number in numbers]
    return Table(frame.drop(columns=label), frame[label], places, lines=numbers)


def _arrays(path: Path) -> Table:
    try:
        with path.open("rb") as source, np.load(source, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: expected arrays X and y, got {reason}") from error
    if not {"X", "y"} <= set(arrays):
        raise ValueError(f"{path}: expected arrays X and y, got {', '.join(arrays) or 'none'}")
    X, y = arrays["X"], arrays["y"]
    if y.ndim != 1 or X.ndim not in (2, 3, 4) or len(X) != len(y) or X.dtype.kind not in "biuf":
        raise ValueError(
            f"{path}: expected X of shape (n, d), (n, h, w) or (n, h, w, 3) in numbers and y of "
            f"shape (n,), got {X.dtype} {X.shape} and {y.shape}"
        )
    places = [f"row {number}" for number in range(len(y))]
    labels = pd.Series(y, name="y")
    if X.ndim == 2:
        columns = [f"x{number}" for number in range(X.shape[1])]
        return Table(pd.DataFrame(X, columns=columns), labels, places)
    if not np.isfinite(X).all():
        raise ValueError(f"{path}: expected finite pixels, got NaN or infinite ones")
    return Table(X.astype(float), labels, places, _bytes(X))


def _folder(path: Path) -> Table:
    files = sorted(f for f in path.glob("*/*") if f.suffix.lower() in PICTURES)
    if not files:
        raise ValueError(f"{path}: expected a folder of pictures for each class, got no picture")
    pixels = np.stack([_picture(file) for file in files])
    labels = pd.Series([file.parent.name for file in files], name="folder")
    notice = f"Every picture was scaled to {SIDE} x {SIDE} pixels."
    names = [str(file.relative_to(path)) for file in files]
    return Table(pixels.astype(float), labels, names, pixels, (notice,))


def pictures_of(folder: Path, table: Table) -> Table:
    """The table with the pictures of a folder beside its rows, in the order of their names.

    A column of texts each of which names a file of the folder gives the order instead, and is
    no feature.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of pictures, got no such folder")
    files = {f.name: f for f in sorted(folder.iterdir()) if f.suffix.lower() in PICTURES}
    count, features = len(table.labels), table.features
    names = list(files)
    if isinstance(features, pd.DataFrame):
        for column in features.select_dtypes(exclude="number"):
            if features[column].isin(names).all():
                names, features = list(features[column]), features.drop(columns=column)
                break
    if len(names) != count:
        raise ValueError(
            f"{folder}: expected one picture for each of the {count} rows, got {len(names)}"
        )
    shown = np.stack([_picture(files[name]) for name in names])
    return replace(table, features=features, pictures=shown)


def _picture(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB").resize((SIDE, SIDE)))
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"{file}: expected a picture, got a file that cannot be read") from error


def _bytes(X: np.ndarray) -> np.ndarray:
    """Pixels of any range as bytes, to be looked at."""
    low, high = float(X.min()), float(X.max())
    return (255 * (X - low) / ((high - low) or 1)).astype(np.uint8)


def _labelled(table: Table) -> Table:
    """Without the rows that have no label."""
    missing = table.labels.isna().to_numpy()
    if not missing.any():
        return table
    kept = np.flatnonzero(~missing)
    places = [table.places[row] for row in np.flatnonzero(missing)]
    notice = f"{missing.sum()} rows without a label were left out ({_some(places)})."
    features = table.features
    if isinstance(features, pd.DataFrame):
        features = features.iloc[kept].reset_index(drop=True)
    else:
        features = features[kept]
    return Table(
        features,
        table.labels.iloc[kept].reset_index(drop=True),
        [table.places[row] for row in kept],
        None if table.pictures is None else table.pictures[kept],
        (*table.notices, notice),
        None if table.lines is None else [table.lines[row] for row in kept],
    )


def _some(names: list[str], most: int = 5) -> str:
    """The first few of a list of names."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
