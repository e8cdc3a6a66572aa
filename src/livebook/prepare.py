"""From a table to what a kernel takes: unit vectors and targets, with a notice for each change."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor

from .tables import Table, _some

MOST_VALUES = 50  # different texts of a column that becomes columns of zeros and ones
MOST_CLASSES = 100
FEW = 20  # so many different whole numbers at most are classes


@dataclass(frozen=True)
class Prepared:
    """Unit vectors, targets, what the targets mean, and where each row stands."""

    X: Float[Tensor, "n d"]
    y: Tensor  # (n,), or (n, c) for more than two classes; -1 and 1 for classes
    labels: list[str]
    classes: tuple[str, ...]  # () for numbers
    places: list[str]
    lines: list[int | None]  # in the file; None where there are none
    pictures: np.ndarray | None
    notices: tuple[str, ...]
    unit: float = 1.0  # what a target of one is in the unit of the labels
    centre: float = 0.0
    X_test: Float[Tensor, "n2 d"] | None = None
    y_test: Tensor | None = None
    test_places: tuple[str, ...] = ()

    def label_of(self, prediction: Tensor) -> list[str]:
        """Predictions in words: the class of the greatest output, or the number in its unit."""
        if not self.classes:
            return [f"{self.centre + self.unit * value:.4g}" for value in prediction.tolist()]
        chosen = decision(prediction, prediction.ndim == 2).tolist()
        return [self.classes[index] for index in chosen]


def decision(prediction: Tensor, several: bool) -> Tensor:
    """The class that outputs decide for: the greatest of several, on the last axis, or a sign."""
    return prediction.argmax(dim=-1) if several else (prediction > 0).long()


def prepare(table: Table, kind: str | None = None, test: Table | None = None) -> Prepared:
    """Unit vectors and targets of a table, and of a second one in the same units.

    Numbers are standardised; texts of few values become columns of zeros and ones; a missing
    number becomes the median. A constant is appended, as large as the other columns together, so
    that the length of a row is not lost when it is divided by its norm. Pixels are only divided.
    """
    notices = list(table.notices)
    X, X_test = _vectors(table, test, notices)
    classes, y, y_test, unit, centre = _targets(table.labels, test, kind, notices)
    _note_copies(X, table, notices)
    return Prepared(
        _unit_rows(X),
        y,
        [str(label) for label in table.labels],
        classes,
        table.places,
        table.lines or [None] * len(y),
        table.pictures,
        tuple(notices),
        unit,
        centre,
        None if X_test is None else _unit_rows(X_test),
        y_test,
        () if test is None else tuple(test.places),
    )


def _vectors(table: Table, test: Table | None, notices: list[str]) -> tuple:
    if isinstance(table.features, np.ndarray):
        X = table.features.reshape(len(table.labels), -1)
        if test is None:
            return X, None
        if getattr(test.features, "shape", ())[1:] != table.features.shape[1:]:
            raise ValueError("TEST: expected images of the same shape as those of DATA, got others")
        return X, test.features.reshape(len(test.labels), -1)
    frame = table.features.replace([np.inf, -np.inf], np.nan)
    numbers, texts = _columns(frame, notices)
    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    coded = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    change = make_column_transformer((scaled, numbers), (coded, texts))
    X = np.asarray(change.fit_transform(_plain(frame, numbers, texts)), dtype=float)
    constant = float(np.sqrt((X**2).sum(axis=1).mean()))
    X = np.column_stack([X, np.full(len(X), constant)])
    if test is None:
        return X, None
    absent = [column for column in (*numbers, *texts) if column not in test.features]
    if absent:
        raise ValueError(f"TEST: expected the columns of DATA, got none named {_some(absent)}")
    other = test.features.replace([np.inf, -np.inf], np.nan)
    Z = np.asarray(change.transform(_plain(other, numbers, texts)), dtype=float)
    return X, np.column_stack([Z, np.full(len(Z), constant)])


def _columns(frame: pd.DataFrame, notices: list[str]) -> tuple[list[str], list[str]]:
    """Columns of numbers and of texts that are used; a notice for what happens to the others."""
    constant = [c for c in frame if frame[c].nunique(dropna=False) <= 1 or frame[c].isna().all()]
    rest = frame.drop(columns=constant)
    numbers = [c for c in rest.select_dtypes(["number", "bool"])]
    texts = [c for c in rest if c not in numbers]
    long = [c for c in texts if rest[c].nunique() > MOST_VALUES]
    texts = [c for c in texts if c not in long]
    gaps = [c for c in (*numbers, *texts) if rest[c].isna().any()]
    if constant:
        notices.append(f"Constant columns were left out: {_some(constant)}.")
    if long:
        notices.append(
            f"Columns of text with more than {MOST_VALUES} different values were left out: "
            f"{_some(long)}."
        )
    if texts:
        notices.append(
            f"Columns of text became one column of zeros and ones per value: {_some(texts)}."
        )
    if gaps:
        notices.append(
            f"Missing values: {int(rest[gaps].isna().sum().sum())} entries of {_some(gaps)}; a "
            "missing number was replaced by the median of its column, a missing text is a value "
            "of its own."
        )
    if not numbers and not texts:
        raise ValueError("DATA: expected a column with at least two different values, got none")
    return numbers, texts


def _plain(frame: pd.DataFrame, numbers: list[str], texts: list[str]) -> pd.DataFrame:
    numeric = frame[numbers].apply(pd.to_numeric, errors="coerce").astype(float)
    words = frame[texts].astype(object).where(frame[texts].notna(), "(missing)").astype(str)
    return pd.concat([numeric, words], axis=1)


def _targets(labels: pd.Series, test: Table | None, kind: str | None, notices: list[str]) -> tuple:
    """Classes as -1 and 1; numbers less their mean, divided by their standard deviation."""
    kinds = ("classes", "numbers")
    if kind not in (None, *kinds):
        raise ValueError(f"KIND: expected classes or numbers, got {kind!r}")
    numeric = pd.api.types.is_numeric_dtype(labels) and not pd.api.types.is_bool_dtype(labels)
    if kind == "numbers" and not numeric:
        raise ValueError("LABEL: expected a column of numbers (KIND=numbers), got texts")
    if numeric and np.isinf(labels.to_numpy(dtype=float)).any():
        raise ValueError("LABEL: expected finite numbers, got infinite ones")
    whole = numeric and bool((labels == labels.round()).all())
    as_numbers = kind == "numbers" or (
        kind is None and numeric and not (whole and labels.nunique() <= FEW)
    )
    if labels.nunique() < 2:
        raise ValueError(
            f"LABEL: expected at least two different labels, got only {labels.iloc[0]!r}"
        )
    if as_numbers:
        centre, unit = float(labels.mean()), float(labels.std(ddof=0))
        if not np.isfinite(unit):
            raise ValueError(f"LABEL: expected numbers whose squares are finite, got {centre:.1e}")
        y = torch.tensor(((labels - centre) / unit).to_numpy(dtype=float))
        y_test = None if test is None else _numbers(test.labels, centre, unit)
        return (), y, y_test, unit, centre
    texts = labels.map(_name)
    classes = tuple(sorted(texts.unique(), key=_order))
    if len(classes) > MOST_CLASSES:
        raise ValueError(
            f"LABEL: expected at most {MOST_CLASSES} classes, got {len(classes)} different labels"
            " (numbers: KIND=numbers)"
        )
    counts = texts.value_counts()
    single = [name for name in classes if counts[name] == 1]
    if single:
        notices.append(f"Classes with a single row, which nothing can vouch for: {_some(single)}.")
    y_test = None if test is None else _coded(test.labels.map(_name), classes)
    return classes, _coded(texts, classes), y_test, 1.0, 0.0


def _coded(texts: pd.Series, classes: tuple[str, ...]) -> Tensor:
    unknown = sorted(set(texts) - set(classes))
    if unknown:
        raise ValueError(f"TEST: expected labels that DATA has, got {_some(unknown)}")
    index = torch.tensor([classes.index(text) for text in texts])
    if len(classes) == 2:
        return 2.0 * index.double() - 1
    return 2 * torch.nn.functional.one_hot(index, len(classes)).double() - 1


def _numbers(labels: pd.Series, centre: float, unit: float) -> Tensor:
    values = pd.to_numeric(labels, errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(values).all():
        raise ValueError("TEST: expected numbers as labels, as in DATA, got others")
    return torch.tensor((values - centre) / unit)


def _name(label: object) -> str:
    """A label as a text: 3.0 is 3."""
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label)


def _order(name: str) -> tuple:
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name


def _unit_rows(X: np.ndarray) -> Tensor:
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    if not (norms > 0).all():
        raise ValueError(
            f"DATA: expected images that are not black, got {int((norms == 0).sum())} black ones"
        )
    return torch.tensor(X / norms)


def _note_copies(X: np.ndarray, table: Table, notices: list[str]) -> None:
    copies = pd.DataFrame(X).duplicated()
    if copies.any():
        places = [table.places[row] for row in np.flatnonzero(copies)]
        notices.append(
            f"{copies.sum()} rows repeat the features of an earlier one: {_some(places)}."
        )
