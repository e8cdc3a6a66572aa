"""Enforces the shape annotations of the library, and provides real digits."""

import os
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import Phase, settings
from jaxtyping import install_import_hook

with install_import_hook("ntk_influence", "beartype.beartype"):
    import ntk_influence as ni

# test_mutants.py runs these files against a changed copy of the library, and lightly.
COPY = os.environ.get("NTK_INFLUENCE_COPY")
if COPY and not Path(ni.__file__).is_relative_to(COPY):
    raise ImportError(f"the tests of the copy in {COPY} imported {ni.__file__}")
if COPY:
    torch.set_num_threads(1)

settings.register_profile("full", deadline=None, derandomize=True, max_examples=40)
settings.register_profile(
    "light", settings.get_profile("full"), max_examples=12, phases=[Phase.generate]
)
settings.load_profile("light" if COPY else "full")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Between processes mutants are shared out by module; every other file stays together."""
    for item in items:
        mutant = getattr(item, "callspec", None) and item.callspec.params.get("mutant")
        name = f"{item.path.stem} {mutant.module}" if mutant else item.path.stem
        item.add_marker(pytest.mark.xdist_group(name))


@pytest.fixture(scope="session")
def digits():
    """Sixty real sevens and nines, and twenty to test on."""
    return ni.datasets.load("mnist-5k-7v9", 60, 20)


@pytest.fixture
def without_annotations():
    """The library has to speak for itself where nobody enforces its annotations."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
