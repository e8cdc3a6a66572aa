"""A user's own data: whatever is wrong is one sentence, whatever is changed is a notice."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from livebook import prepare, report, tables

ROWS = 30


def frame(rows: int = ROWS) -> pd.DataFrame:
    """Three numbers, a text and a label of two classes."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(rows, 3)), columns=["a", "b", "c"])
    table["colour"] = rng.choice(["red", "green"], rows)
    table["kind"] = np.where(table.a > 0, "yes", "no")
    return table


def write(folder, table: pd.DataFrame, name="table.csv", **options):
    path = folder / name
    table.to_csv(path, index=False, **options)
    return path


def given(path, label=None, kind=None, **more):
    return report.read(str(path), label, kind, **more)


def refused(monkeypatch, capsys, *arguments) -> str:
    """The one sentence that the command ends with, before any work is done."""
    monkeypatch.setattr(report, "make", lambda options: pytest.fail("the report was begun"))
    monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        report.main()
    sentence = str(stop.value)
    assert sentence.startswith("report: ")
    assert "\n" not in sentence
    assert "expected" in sentence
    assert ", got " in sentence
    assert capsys.readouterr().out == ""
    return sentence


def text(content: bytes, name="table.csv"):
    """Writes a file as it is."""

    def file(folder):
        path = folder / name
        path.write_bytes(content)
        return path

    return file


def table(change, name="table.csv"):
    """Writes the table above after a change."""

    def file(folder):
        return write(folder, change(frame()), name)

    return file


def arrays(**named):
    """Writes an npz file."""

    def file(folder):
        np.savez(folder / "data.npz", **named)
        return folder / "data.npz"

    return file


X = np.random.default_rng(1).normal(size=(ROWS, 4))
Y = np.arange(ROWS) % 2
BAD = {
    "missing": (lambda folder: folder / "none.csv", [], "no such file"),
    "empty": (text(b""), [], "No columns"),
    "binary": (text(bytes(range(256)) * 9), [], "UTF-8"),
    "header only": (text(b"a,b,y\n"), [], "got 0"),
    "one column": (text(b"a\n" + b"1\n" * 20), [], "1 column"),
    "ragged": (text(b"a,b,y\n1,2,0\n1,2,3,4,5\n" + b"1,2,1\n" * 20), [], "line 3"),
    "longer rows": (text(b"a,y\n" + b"1,2,1\n" * 20), [], "longer"),
    "three rows": (table(lambda t: t.head(3)), [], "got 3"),
    "no label column": (table(lambda t: t), ["--label", "knid"], "did you mean kind?"),
    "no labels": (table(lambda t: t.assign(kind=np.nan)), [], "got 0"),
    "one class": (table(lambda t: t.assign(kind="yes")), [], "only 'yes'"),
    "only constants": (table(lambda t: t.assign(a=1, b=2, c=3, colour="red")), [], "got none"),
    "names as labels": (
        lambda folder: write(
            folder, frame(200).assign(kind=[f"name {i}" for i in range(200)]), "t.csv"
        ),
        [],
        "200 different",
    ),
    "texts for numbers": (table(lambda t: t), ["--kind", "numbers"], "texts"),
    "unknown kind": (table(lambda t: t), ["--kind", "klasses"], "klasses"),
    "infinite numbers": (
        table(lambda t: t.assign(kind=np.where(t.a > 0, np.inf, t.b))),
        ["--kind", "numbers"],
        "infinite",
    ),
    "ridge": (table(lambda t: t), ["--ridge", "-1"], "-1.0"),
    "damaged npz": (text(b"PK\x03\x04 not a zip", "data.npz"), [], "got"),
    "other arrays": (arrays(features=X, labels=Y), [], "features, labels"),
    "objects": (arrays(X=X, y=np.array([{}] * ROWS)), [], "got"),
    "other lengths": (arrays(X=X, y=Y[:-1]), [], "(29,)"),
    "complex": (arrays(X=X + 1j, y=Y), [], "complex128"),
    "NaN pixels": (arrays(X=np.full((ROWS, 4, 4), np.nan), y=Y), [], "NaN"),
    "black images": (arrays(X=np.zeros((ROWS, 4, 4)), y=Y), [], "black"),
    "empty folder": (lambda folder: folder, [], "no picture"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_one_sentence_before_any_work(case, tmp_path, monkeypatch, capsys):
    make, options, said = BAD[case]
    out = tmp_path / "out"
    source = tmp_path / "in"
    source.mkdir()
    sentence = refused(monkeypatch, capsys, "--data", make(source), "--out", out, *options)
    assert said in sentence
    assert not out.exists()


def test_too_many_rows_are_refused_with_gib(tmp_path, monkeypatch, capsys):
    columns = {"a": np.arange(1_000_000) / 7, "y": np.arange(1_000_000) % 2}
    path = write(tmp_path, pd.DataFrame(columns))
    sentence = refused(monkeypatch, capsys, "--data", path, "--out", tmp_path / "out")
    assert "got 1,000,000, which need" in sentence
    assert "GiB" in sentence


def test_a_target_that_cannot_be_written_is_refused(tmp_path, monkeypatch, capsys):
    path = write(tmp_path, frame())
    assert "folder" in refused(monkeypatch, capsys, "--data", path, "--out", path)
    (tmp_path / "out" / "report.csv").mkdir(parents=True)
    sentence = refused(monkeypatch, capsys, "--data", path, "--out", tmp_path / "out")
    assert "report.csv" in sentence


NOTICES = {
    "text": (lambda t: t, "zeros and ones per value: colour"),
    "many texts": (lambda t: t.assign(colour=[f"id {i}" for i in t.index]), "left out: colour"),
    "constant": (lambda t: t.assign(b=2.0), "Constant columns were left out: b"),
    "empty column": (lambda t: t.assign(b=np.nan), "Constant columns were left out: b"),
    "missing": (lambda t: t.assign(b=t.b.where(t.index > 3)), "4 entries of b"),
    "infinite": (lambda t: t.assign(b=t.b.where(t.index > 3, np.inf)), "4 entries of b"),
    "no label": (lambda t: t.assign(kind=t.kind.where(t.index > 1)), "line 2, line 3"),
    "copies": (lambda t: pd.concat([t, t.head(2)]), "2 rows repeat"),
    "single": (lambda t: t.assign(kind=["maybe", *t.kind[1:]]), "single row"),
}


@pytest.mark.parametrize("case", NOTICES)
def test_what_is_changed_is_said(case, tmp_path):
    change, said = NOTICES[case]
    if case == "many texts":
        path = write(tmp_path, change(frame(80)))
    else:
        path = write(tmp_path, change(frame()))
    prepared = given(path).prepared
    assert any(said in notice for notice in prepared.notices), prepared.notices
    assert torch.isfinite(prepared.X).all()
    assert torch.allclose(prepared.X.norm(dim=1), torch.ones(len(prepared.y), dtype=torch.float64))


def test_a_clean_table_has_no_notice(tmp_path):
    assert given(write(tmp_path, frame().drop(columns="colour"))).prepared.notices == ()


def test_lines_are_those_of_the_file(tmp_path):
    rows = ["a,b,kind", '1,"two\nlines",yes', "", "2,x,no", *[f"{i},x,yes" for i in range(9)]]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    table = tables.read(tmp_path / "t.csv")
    assert table.places[:3] == ["line 2", "line 5", "line 6"]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_and_a_byte_order_mark_are_read(separator, tmp_path):
    path = write(tmp_path, frame(), sep=separator, encoding="utf-8-sig")
    assert list(tables.read(path).features) == ["a", "b", "c", "colour"]


def test_the_meaning_of_labels(tmp_path):
    t = frame()
    cases = {
        "no yes": t.kind,
        "0 1": (t.a > 0).astype(int),
        "0 1 2": pd.Series(np.arange(len(t)) % 3),
        "False True": t.a > 0,
    }
    for expected, labels in cases.items():
        prepared = given(write(tmp_path, t.assign(kind=labels))).prepared
        assert " ".join(prepared.classes) == expected
        assert set(prepared.y.unique().tolist()) == {-1.0, 1.0}
        assert prepared.y.ndim == (2 if len(prepared.classes) > 2 else 1)
        assert prepared.label_of(prepared.y) == prepared.labels
    numbers = given(write(tmp_path, t.assign(kind=t.a * 3 + 5))).prepared
    assert numbers.classes == ()
    assert float(numbers.y.mean()) == pytest.approx(0, abs=1e-12)
    back = [float(text) for text in numbers.label_of(numbers.y)]
    assert back == pytest.approx((t.a * 3 + 5).tolist(), rel=1e-3)


def test_a_second_table_is_prepared_like_the_first(tmp_path):
    t = frame()
    data = write(tmp_path, t)
    test = write(tmp_path, t.iloc[:5], "test.csv")
    prepared = given(data, test=str(test)).prepared
    assert torch.equal(prepared.X_test, prepared.X[:5])
    assert torch.equal(prepared.y_test, prepared.y[:5])
    strange = t.iloc[:5].assign(colour="blue", c=np.nan)
    prepared = given(data, test=str(write(tmp_path, strange, "test.csv"))).prepared
    assert torch.isfinite(prepared.X_test).all()
    for bad, said in ((t.drop(columns="b"), "named b"), (t.assign(kind="other"), "other")):
        path = write(tmp_path, bad, "test.csv")
        with pytest.raises(ValueError, match=said):
            given(data, test=str(path))


def picture(path, seed):
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(1, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_a_folder_of_pictures_is_a_table(tmp_path):
    for i in range(12):
        picture(tmp_path / f"class {i % 2}" / f"{i}.png", i)
    table = tables.read(tmp_path)
    prepared = prepare.prepare(table)
    assert prepared.classes == ("class 0", "class 1")
    assert prepared.pictures.shape == (12, tables.SIDE, tables.SIDE, 3)
    assert prepared.places[0] == "class 0/0.png"


def test_pictures_beside_a_table(tmp_path):
    t = frame(12)
    names = [f"{i:02d}.png" for i in range(12)]
    for i, name in enumerate(names):
        picture(tmp_path / "pictures" / name, i)
    folder = str(tmp_path / "pictures")
    plain = given(write(tmp_path, t), images=folder)
    named = given(write(tmp_path, t.assign(colour=names[::-1])), images=folder)
    assert np.array_equal(plain.prepared.pictures, named.prepared.pictures[::-1])
    assert "colour" not in named.table.features
    (tmp_path / "pictures" / "00.png").write_bytes(b"no picture")
    for bad, said in ((folder, "cannot be read"), (str(tmp_path / "none"), "no such folder")):
        with pytest.raises(ValueError, match=said):
            given(write(tmp_path, t), images=bad)
    (tmp_path / "pictures" / "00.png").unlink()
    with pytest.raises(ValueError, match="got 11"):
        given(write(tmp_path, t), images=folder)
