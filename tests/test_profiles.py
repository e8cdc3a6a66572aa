"""A profile or a command that asks for what is not there is refused before anything runs."""

import pytest
from small_book import chapter, finished, refused

from livebook import notebooks, paths, profiles

PROFILES = sorted((paths.ROOT / "profiles").glob("*.yaml"))
SOURCES = {path.stem: path for path in sorted(paths.CHAPTERS.glob("*.md"))}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_profiles_of_the_book_ask_for_what_is_there(path):
    profiles.check(path, profiles.read(path), SOURCES)


@pytest.mark.parametrize("source", SOURCES.values(), ids=lambda path: path.stem)
def test_every_chapter_names_its_parameters(source):
    assert "device" in notebooks.parameters(notebooks.read_source(source))


def test_parameters_are_the_names_that_are_assigned(tmp_path):
    source = chapter(tmp_path, "01_one", "other = 3")
    cell = 'a, (b, *c) = 1, [2, 3]\nd: int = 4\ne = f = [g for g in range(3)]\nh["key"] = 1'
    source.write_text(source.read_text().replace("x = 2.0", cell))
    assert notebooks.parameters(notebooks.read_source(source)) == set("abcdef")


DAMAGED = {
    "nothing": (b"", "expected a mapping"),
    "only a comment": (b"# later\n", "expected a mapping"),
    "no chapter": (b"{}", "expected a mapping"),
    "list": (b"- 01_one\n", "expected a mapping"),
    "text": (b"01_one", "expected a mapping"),
    "number": (b"3", "expected a mapping"),
    "broken": (b"01_one: {x: [1, 2}", "expected YAML"),
    "tab": (b"01_one:\n\tx: 1\n", "expected YAML"),
    "two documents": (b"01_one: {}\n---\n02_two: {}\n", "expected YAML"),
    "python object": (b"01_one: {x: !!python/object/apply:os.getcwd []}", "expected YAML"),
    "no date": (b"01_one: {x: 2024-13-45}", "expected YAML"),
    "no number": (b"01_one: {x: !!int many}", "expected YAML"),
    "list as key": (b"[1, 2]: {}", "expected YAML"),
    "deep": (b"01_one: " + 5000 * b"[", "expected YAML"),
    "control character": (b"01_one: {x: '\x01'}", "expected YAML"),
    "Latin-1": ("01_one: {x: é}".encode("latin-1"), "expected UTF-8"),
    "UTF-16": ("01_one: {x: 1}".encode("utf-16"), "expected UTF-8"),
    "chapter twice": (b"01_one: {}\n01_one: {x: 1}\n", "'01_one' a second time in line 2"),
    "parameter twice": (b"01_one:\n  x: 1\n  'x': 2\n", "'x' a second time in line 3"),
    "deep key twice": (b"01_one:\n  x: [{a: 1, a: 2}]\n", "'a' a second time in line 2"),
    "no parameters": (b"01_one:\n", "01_one: expected a mapping"),
    "list of parameters": (b"01_one: [x, 1]\n", "01_one: expected a mapping"),
    "number of parameters": (b"01_one: 3\n", "01_one: expected a mapping"),
    "unknown chapter": (b"01_one: {}\n01_on: {x: 1}\n", "did you mean 01_one?"),
    "file of a chapter": (b"01_one.md: {x: 1}\n", "did you mean 01_one?"),
    "chapter as number": (b"1: {x: 1}\n", "chapter: expected one of 01_one"),
    "unknown parameter": (b"01_one: {n_trian: 3}\n", "did you mean n_train?"),
    "capital": (b"01_one: {X: 3}\n", "parameter: expected one of n_train, x"),
    "yes is not a name": (b"01_one: {yes: 3}\n", "got True"),
    "no parameter of this one": (b"02_none: {x: 3}\n", "expected one of none"),
    "date": (b"01_one: {x: 2024-01-02}\n", "01_one, x: expected numbers"),
    "bytes": (b"01_one: {x: !!binary aGk=}\n", "01_one, x: expected numbers"),
    "set": (b"01_one: {x: !!set {a, b}}\n", "01_one, x: expected numbers"),
    "ring": (b"01_one: {x: &a [*a]}\n", "01_one, x: expected numbers"),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("book") / "chapters"
    one, none = chapter(folder, "01_one"), chapter(folder, "02_none")
    one.write_text(one.read_text().replace("x = 2.0", "x, n_train = 2.0, 3"))
    none.write_text(none.read_text().replace("[parameters]", "[other]"))
    return {"01_one": one, "02_none": none}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_profile_that_asks_for_something_else_is_one_sentence(
    sources, tmp_path, content, message
):
    path = tmp_path / "profile.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="expected") as refused:
        profiles.check(path, profiles.read(path), sources)
    sentence = str(refused.value)
    assert sentence.startswith(str(path))
    assert message in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "content",
    [
        b"01_one: {}",
        b"01_one: {x: null, n_train: [1, {a: 0.5}]}\n02_none: {}",
        b"01_one: &a {x: 1}\n",
        b"\xef\xbb\xbf01_one: {x: 1.5}\r\n",
        b"01_one: {<<: {x: 1}, n_train: 2}",
    ],
)
def test_a_sound_profile_is_accepted(sources, tmp_path, content):
    path = tmp_path / "profile.yaml"
    path.write_bytes(content)
    profiles.check(path, profiles.read(path), sources)


@pytest.mark.parametrize("path", ["", "missing.yaml", "file/below.yaml"])
def test_a_profile_that_cannot_be_read_is_one_sentence(tmp_path, path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^[^\n]*: expected a profile, got [^\n]*$"):
        profiles.read(tmp_path / path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["99_nothing"], "chapter: expected one of 01_one, 02_two, got '99_nothing'"),
        (["01_one", "02_tow"], "did you mean 02_two?"),
        (["02_two", "--profile", "profile.yaml"], "expected one of 01_one, got '02_two'"),
        (["--profile", "wrong.yaml"], "did you mean 01_one?"),
    ],
)
def test_a_command_that_asks_for_something_else_runs_nothing(
    tmp_path, monkeypatch, arguments, message
):
    for name in ("01_one", "02_two"):
        chapter(tmp_path / "chapters", name)
    (tmp_path / "profile.yaml").write_text("01_one: {x: 3}")
    (tmp_path / "wrong.yaml").write_text("01_one: {x: 3}\n01_noe: {x: 3}")
    monkeypatch.chdir(tmp_path)
    sentence = refused(monkeypatch, tmp_path, *arguments)
    assert message in sentence
    assert "\n" not in sentence
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("option", ["--jobs", "--timeout"])
@pytest.mark.parametrize("value", ["0", "two", "-1", "1.5"])
def test_a_number_that_makes_no_sense_is_refused(monkeypatch, tmp_path, capsys, option, value):
    refused(monkeypatch, tmp_path, f"{option}={value}")
    assert f"expected a positive whole number, got {value}" in capsys.readouterr().err


def test_a_profile_runs_its_chapters_with_its_parameters_and_keeps_its_times(tmp_path):
    for name in ("01_one", "02_two"):
        chapter(tmp_path / "chapters", name, "print(x)")
    (tmp_path / "large.yaml").write_text("01_one: {x: 3}")
    code, output = finished(tmp_path, "--profile", tmp_path / "large.yaml")
    assert code == 0, output
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["01_one.ipynb"]
    assert '"3\\n"' in (tmp_path / "target" / "01_one.ipynb").read_text()
    assert '"large"' in (tmp_path / "_build" / "run_times.json").read_text()
