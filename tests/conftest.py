"""Fixtures of several folders of tests."""

from collections.abc import Iterator

import pytest
from mpich_venv import mpich
from small_disk import disk

__all__ = ["disk", "mpich"]


@pytest.fixture(scope="session", autouse=True)
def stable_baselines3_logs_in_a_folder_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """It makes one for each model that is given no logger, among the temporary files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SB3_LOGDIR", str(tmp_path_factory.mktemp("sb3")))
        yield
