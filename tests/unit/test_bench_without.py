"""What the freshness benchmark takes away is there to be taken away."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from tests.bench.without import IMPROVEMENTS


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    yield
    patch.stopall()


@pytest.mark.parametrize("name", IMPROVEMENTS)
def test_each_improvement_can_be_taken_away(name: str) -> None:
    IMPROVEMENTS[name].take_away()
