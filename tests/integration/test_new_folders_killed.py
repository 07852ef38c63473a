"""A process that is killed while it makes a new folder leaves a whole one, or one that can be made anew."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from new_folder_places import PLACES, make

from rlctl.core.errors import StorageError

KILLED_AT = """
import os, sys
from pathlib import Path
from rlctl.system.files import atomic_folder

left = int(sys.argv[2])

def counted(call):
    def counting(*arguments, **more):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return call(*arguments, **more)
    return counting

for name in ("rename", "mkdir", "write_text", "unlink"):
    setattr(Path, name, counted(getattr(Path, name)))
with atomic_folder(Path(sys.argv[1]), ("work", "config", "journal")) as new:
    (new / "work").mkdir()
    (new / "config").write_text("c")
    (new / "journal").write_text("j")
"""


@pytest.mark.parametrize("place", PLACES)
def test_a_kill_at_any_step_leaves_all_of_it_or_what_can_be_made_anew(
    place: Callable[[Path], Path], tmp_path: Path
) -> None:
    step, code = 0, 9
    while code == 9:
        (tmp_path / str(step)).mkdir()
        folder = place(tmp_path / str(step))
        done = subprocess.run([sys.executable, "-c", KILLED_AT, folder, str(step)], timeout=60, check=False)
        code = done.returncode
        if (folder / "journal").exists():  # it has begun, and is not to be begun anew
            with pytest.raises(StorageError, match="exists already"):
                make(folder)
        else:
            make(folder)
        assert (folder / "work").is_dir()
        assert (folder / "config").read_text() == "c"
        step += 1
    assert code == 0
    assert step > 5
