"""Parity data: the folder given by --parity-root or SLIME_PARITY_ROOT, else the committed subset."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.parity.reference import ParityRoot

DEFAULT_ROOT = Path(__file__).parent / "data"
_COUNTS = pytest.StashKey[Counter[str]]()


def parity_root(config: pytest.Config) -> ParityRoot:
    """Parity data of this run."""
    given = config.getoption("--parity-root", default=None) or os.environ.get("SLIME_PARITY_ROOT")
    return ParityRoot(Path(given) if given else DEFAULT_ROOT)


@pytest.fixture(scope="session")
def root(request: pytest.FixtureRequest) -> ParityRoot:
    """Parity data of this run."""
    return parity_root(request.config)


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Counter[str]:
    """What was found equal to the recorded; tests add to it, and the run ends by printing it."""
    return request.config.stash.setdefault(_COUNTS, Counter())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was compared."""
    counts = config.stash.get(_COUNTS, Counter())
    if counts:
        found = ", ".join(f"{number:,} {what}" for what, number in counts.items())
        terminalreporter.write_line(f"parity with {parity_root(config).path}: {found}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that ask for a case once for each case of the data."""
    if "case_name" in metafunc.fixturenames:
        # The scope makes pytest run all tests of a case one after the other, so that its outputs are computed once.
        metafunc.parametrize("case_name", list(parity_root(metafunc.config).cases), scope="module")
