"""Profiles: YAML files that give chapters other parameters, checked before anything runs."""

import json
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

import yaml

from . import notebooks

MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """YAML in which no key may come twice in a mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in (key for key, _ in node.value if key.id == "scalar" and key.tag != MERGE):
            name = self.construct_object(key)
            if name in seen:
                line = key.start_mark.line + 1
                raise ValueError(f"the key {name!r} a second time in line {line}")
            seen.add(name)
        return super().construct_mapping(node, deep)


def read(path: Path) -> dict[str, dict]:
    """The parameters by chapter; ``ValueError`` with one sentence that names the file."""
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ValueError(f"{path}: expected a profile, got {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8, got {error.reason}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected YAML, got {_one_line(error)}") from error
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path}: expected a mapping from chapters to parameters, got {found!r}")
    for chapter, parameters in found.items():
        if not isinstance(parameters, dict):
            raise ValueError(
                f"{path}, {chapter}: expected a mapping from parameters to values ({{}} for the "
                f"defaults), got {parameters!r}"
            )
    return found


def check(path: Path, profile: dict[str, dict], sources: dict[str, Path]) -> None:
    """Every chapter is there and assigns every parameter, and every value can be passed on."""
    for chapter, parameters in profile.items():
        known(f"{path}: chapter", chapter, sources)
        names = _assigned(sources[chapter]) if parameters else ()
        for name, value in parameters.items():
            known(f"{path}, {chapter}: parameter", name, names)
            try:
                json.dumps(value)
            except (TypeError, ValueError, RecursionError) as error:
                raise ValueError(
                    f"{path}, {chapter}, {name}: expected numbers, texts, lists and mappings, "
                    f"got {_one_line(error)}"
                ) from error


def known(what: str, name: object, names: Iterable[str]) -> None:
    """``ValueError`` with the nearest known name unless this is one of them."""
    names = sorted(names)
    if name in names:
        return
    near = get_close_matches(str(name), names, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"{what}: expected one of {', '.join(names) or 'none'}, got {name!r}{hint}")


def _assigned(source: Path) -> set[str]:
    try:
        return notebooks.parameters(notebooks.read_source(source))
    except SyntaxError as error:
        raise ValueError(
            f"{source.name}: expected Python in the cell of parameters, got {error.msg}"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
