"""The page of the public truth: its tables come from the sets, and its code runs as it stands."""

import re

import pytest
import torch

import ntk_influence as ni
from livebook import truths
from livebook.paths import ROOT

PAGE = (ROOT / "truth.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)


def rows(table) -> dict[str, list[str]]:
    """Cells by the name of the set."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert {len(line) for line in lines} == {len(lines[0])}
    return {line[0]: line[1:] for line in lines[2:]}


@pytest.mark.parametrize("name", ni.truth.NAMES)
def test_every_number_of_the_tables_is_that_of_a_set(name):
    truth = ni.truth.load(name)
    model, count, floor, above, ceiling, moved = rows(truths.described())[name]
    version, made, digest = rows(truths.known_again())[name]
    assert digest.replace("`", "").replace(" ", "") == truth.hash
    assert version == str(truth.version)
    assert truth.provenance["commit"] in made
    assert f"ridge {truth.settings['ridge']:g}" in model
    assert count == f"{len(truth.left_out)} of {len(truth.train)}"
    if truth.second is None:
        assert (floor, above, ceiling, moved) == ("exact", "1.00", "1.000, 1.000", "")
        return
    found = ni.truth.score(truth.second, truth)
    apart = (truth.floor.square().sum() * len(truth.test)).sqrt()
    assert float(floor) == pytest.approx(float(apart / truth.changes.norm()), rel=0.05)
    assert float(above) == pytest.approx(found["share_above"], abs=0.005)
    assert ceiling == f"{found['pearson']:.3f}, {found['spearman']:.3f}"
    assert float(moved) == pytest.approx(truth.provenance["moves_on"], rel=0.05)


def test_the_page_types_no_size():
    prose = re.sub(r"```.*?```|`[^`]*`|SHA-256", "", PAGE, flags=re.S)
    assert not re.search(r"\d", prose)


@pytest.mark.parametrize("name", ni.truth.NAMES)
def test_the_code_of_the_page_runs_as_it_stands_for_every_name(name):
    assert BLOCKS[0].count('"kernel-1"') == 1
    names = {}
    for block in BLOCKS:
        exec(block.replace('"kernel-1"', f'"{name}"'), names)
    found, truth = names["found"], names["truth"]
    assert truth.name == name
    assert found["spearman"] > 0.5
    if name.startswith("kernel"):
        assert found["slope"] > 1  # IHVP misses the leverage
        assert torch.allclose(names["model"].predict(names["k_test"]), truth.predictions)
    if name == "smoothed-1":  # a ReLU network rests on other kinks where rounding differs
        f = names["trained"].predict(names["data"].X_test)
        assert torch.allclose(f, truth.predictions, atol=1e-8)
