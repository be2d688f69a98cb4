"""A simulation is quiet, for it would log a hundred thousand refusals; what comes after it in this process is not."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _loud_again() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)
