"""What all folders of tests share: their fixtures, and which tests are quick."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mpich_venv import mpich
from small_disk import disk

__all__ = ["disk", "mpich"]

TESTS = Path(__file__).parent
UNITS = TESTS / "unit"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Units and the examples in docstrings are quick; other tests are if they say so, or their parameters do."""
    for item in items:
        if item.path.is_relative_to(UNITS) or not item.path.is_relative_to(TESTS):
            item.add_marker(pytest.mark.quick)


@pytest.fixture(scope="session", autouse=True)
def stable_baselines3_logs_in_a_folder_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """It makes one for each model that is given no logger, among the temporary files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SB3_LOGDIR", str(tmp_path_factory.mktemp("sb3")))
        yield
