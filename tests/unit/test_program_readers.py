"""Readers: the number that each finds, and what is said where there is none."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from rlctl.programs import readers
from rlctl.programs.reader_options import Reader
from rlctl.programs.readers import ReadError, read

FILES = {
    "stdout.txt": "step 1 E = -1.5D+00\nstep 2 E = 3.5\nstep 3 E = 1.0\nbad = NaN\nfar = 1.5-103\n",
    "stderr.txt": "warning: 7 overflows\n",
    "out.json": json.dumps({"energy": -2.5, "deep": [{"e": 1}, {"e": "2.5"}], "all": [3, 1, 2], "no": None}),
    "dakota.out": " 1.25e+00 f\n 2.5 g\n 3.5 f\nnot a line of it\n",
    "log.csv": "time,energy,note\n0,-1.0,a\n1,-3.0,b\n2,-2.0,c\n",
    "log.dat": "# time  energy\n0 5\n1 6\n\n2 4\n",
    "numbers.dat": "1 2\n3 4\n",
    "thermo.txt": "Step Temp\n0 300\nStep Temp\n1 310\n",
    "semicolon.csv": "a;b\n1;2\n",
    "empty.txt": "",
    "damaged.json": '{"energy": -2.',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    np.savez(tmp_path / "out.npz", energy=np.array([3.0, 1.0, 2.0]), matrix=np.arange(6.0).reshape(2, 3), none=[])
    np.save(tmp_path / "alone.npy", np.array(4.5))
    (tmp_path / "folder").mkdir()
    return tmp_path


def found(folder: Path, **options: Any) -> float:
    """The result ``energy``, by options as a configuration has them."""
    reader = TypeAdapter(Reader).validate_python(options)
    return read("energy", reader.model_dump(mode="json", by_alias=True), folder)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"regex": r"E = (\S+)"}, 1.0),
        ({"regex": r"E = (\S+)", "take": "first"}, -1.5),
        ({"regex": r"E = (\S+)", "take": "min"}, -1.5),
        ({"regex": r"E = (\S+)", "take": "max"}, 3.5),
        ({"regex": r"E = (\S+)", "take": "mean"}, 1.0),
        ({"regex": r"^far = (.*)$"}, 1.5e-103),
        ({"regex": r"\d+", "file": "stderr"}, 7.0),
        ({"regex": r"-1\.0", "file": "log.csv"}, -1.0),
        ({"json": "out.json"}, -2.5),
        ({"json": "out.json", "path": "deep.1.e"}, 2.5),
        ({"json": "out.json", "path": "deep.-1.e"}, 2.5),
        ({"json": "out.json", "path": "all", "take": "max"}, 3.0),
        ({"labelled": "dakota.out", "label": "f"}, 3.5),
        ({"labelled": "dakota.out", "label": "f", "take": "first"}, 1.25),
        ({"table": "log.csv"}, -2.0),
        ({"table": "log.csv", "take": "min"}, -3.0),
        ({"table": "log.csv", "row": 0}, -1.0),
        ({"table": "log.csv", "column": "time", "row": -2}, 1.0),
        ({"table": "log.csv", "column": 0, "take": "mean"}, 1.0),
        ({"table": "log.dat"}, 4.0),
        ({"table": "log.dat", "take": "max"}, 6.0),
        ({"table": "numbers.dat", "column": 1, "row": 0}, 2.0),
        ({"table": "thermo.txt", "column": "Temp", "take": "mean"}, 305.0),
        ({"table": "semicolon.csv", "column": "b"}, 2.0),
        ({"npz": "out.npz"}, 2.0),
        ({"npz": "out.npz", "take": "mean"}, 2.0),
        ({"npz": "out.npz", "index": 0}, 3.0),
        ({"npz": "out.npz", "variable": "matrix", "index": [1, -1]}, 5.0),
        ({"npz": "out.npz", "variable": "matrix", "take": "first"}, 0.0),
        ({"npz": "out.npz", "variable": "matrix"}, 5.0),
        ({"npz": "alone.npy"}, 4.5),
    ],
)
def test_the_number_that_is_found(folder: Path, options: dict[str, Any], value: float) -> None:
    assert found(folder, **options) == value


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"regex": "pressure = (.*)"}, "result energy (regex pressure = (.*)): nothing matches in stdout, which ends"),
        ({"regex": "pressure", "file": "empty.txt"}, "nothing matches in empty.txt, which ends with: nothing"),
        ({"regex": r"bad = (\S+)"}, "nan is not finite"),
        ({"regex": r"step \d (.)"}, "'E' is not a number"),
        ({"regex": r"E = (x)?"}, "None is not a number"),
        ({"regex": "E", "file": "gone.txt"}, "there is no file gone.txt; there: alone.npy, dakota.out, damaged.json"),
        ({"regex": "E", "file": "folder"}, "folder is not a file"),
        ({"json": "gone.json"}, "result energy (json gone.json): there is no file gone.json; there: "),
        ({"json": "damaged.json"}, "result energy (json damaged.json): JSONDecodeError"),
        ({"json": "out.json", "path": "deep.2.e"}, "there is no '2' in [{'e': 1}, {'e': '2.5'}]"),
        ({"json": "out.json", "path": "enrgy"}, "there is no 'enrgy' in {'energy': -2.5"),
        ({"json": "out.json", "path": "no"}, "None is not a number"),
        ({"json": "out.json", "path": "deep"}, "is not a number"),
        ({"labelled": "dakota.out"}, "the label 'energy'; labels there: f, g"),
        ({"table": "log.csv", "column": "enrgy"}, "there is no column 'enrgy'; columns: time, energy, note"),
        ({"table": "log.csv", "column": "note"}, "'c' is not a number"),
        ({"table": "numbers.dat"}, "there is no column 'energy'; columns: without names"),
        ({"table": "log.csv", "column": 7}, "it has 3 rows, some with 3 columns"),
        ({"table": "log.csv", "row": 7}, "it has 3 rows"),
        ({"table": "empty.txt"}, "the table is empty"),
        ({"npz": "out.npz", "variable": "enrgy"}, "there is no variable 'enrgy'; there: energy, matrix, none"),
        ({"npz": "out.npz", "variable": "none"}, "the array is empty"),
        ({"npz": "out.npz", "variable": "matrix", "index": [7, 0]}, "out of bounds"),
        ({"npz": "out.npz", "variable": "matrix", "index": 1}, "index 1 is not that of a number; its shape is (2, 3)"),
        ({"npz": "log.csv"}, "result energy (npz log.csv): "),
        ({"npz": "gone.npz"}, "there is no file gone.npz"),
        ({"function": "no_such_module_of_ours:read"}, "ModuleNotFoundError: No module named"),
        ({"function": "math:no_such_name"}, "AttributeError"),
        ({"function": "math:sqrt"}, "TypeError"),
        ({"function": "sys:exit"}, "SystemExit"),
    ],
)
def test_a_number_that_is_not_there_is_missed_by_name_with_what_was_there(
    folder: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ReadError) as error:
        found(folder, **options)
    message = str(error.value)
    assert message.startswith("result energy (")
    assert said in message
    assert len(message.splitlines()) == 1


def test_the_exit_code_can_be_a_result(tmp_path: Path) -> None:
    assert read("code", {"exit_code": True}, tmp_path, 3) == 3.0


def test_a_function_of_the_users_gets_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mine_for_tests.py").write_text("def size(folder): return (folder / 'log.csv').stat().st_size\n")
    monkeypatch.syspath_prepend(str(folder))
    assert found(folder, function="mine_for_tests:size") == len(FILES["log.csv"])
    sys.modules.pop("mine_for_tests", None)


def test_of_a_growing_file_whole_lines_are_read(tmp_path: Path) -> None:
    growing = tmp_path / "log.txt"
    growing.write_text("head value\n" + "".join(f"{n} {n}.25\n" for n in range(5000)) + "5000 12")
    for tail in (100, 1 << 20):
        assert read("value", {"table": "log.txt", "column": None, "take": "last", "tail": tail}, tmp_path) == 4999.25
        regex = {"regex": r"\d+ (\S+)$", "file": "log.txt", "take": "last", "tail": tail}
        assert read("value", regex, tmp_path) == 4999.25


def test_a_text_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LARGEST_TEXT", 10)
    (tmp_path / "stdout.txt").write_text("E = 1.0 and more")
    with pytest.raises(ReadError, match="too large to be read as text"):
        found(tmp_path, regex="E = (.*)")


def test_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="needs h5py: pip install 'rlctl[readers]'")
    with h5py.File(tmp_path / "out.h5", "w") as file:
        file["energy"] = 2.5
        file["md/steps"] = np.arange(12.0).reshape(3, 4)
        file["md/nan"] = np.array([1.0, math.nan])
    assert found(tmp_path, hdf5="out.h5") == 2.5
    assert found(tmp_path, hdf5="out.h5", variable="md/steps", index=[1, 2]) == 6.0
    assert found(tmp_path, hdf5="out.h5", variable="md/steps") == 11.0
    assert found(tmp_path, hdf5="out.h5", variable="md/steps", take="mean") == 5.5
    for options, said in (
        ({"variable": "md"}, "/md is a group; there: nan, steps"),
        ({"variable": "gone"}, "there is no variable 'gone'; there: energy, md"),
        ({"variable": "md/nan"}, "nan is not finite"),
        ({"hdf5": "gone.h5"}, "there is no file gone.h5"),
    ):
        with pytest.raises(ReadError) as error:
            found(tmp_path, **{"hdf5": "out.h5", **options})
        assert said in str(error.value)


def test_netcdf(tmp_path: Path) -> None:
    netcdf = pytest.importorskip("netCDF4", reason="needs netCDF4: pip install 'rlctl[readers]'")
    with netcdf.Dataset(tmp_path / "out.nc", "w") as file:
        file.createDimension("t", 3)
        file.createVariable("energy", "f8", ("t",))[:] = [3.0, 1.0, 2.0]
        file.createVariable("masked", "f8", ("t",), fill_value=9e36)[0] = 1.0
        file.createGroup("md").createVariable("e", "f8", ("t",))[:] = [1.0, 2.0, 6.0]
    assert found(tmp_path, netcdf="out.nc") == 2.0
    assert found(tmp_path, netcdf="out.nc", take="min") == 1.0
    assert found(tmp_path, netcdf="out.nc", variable="md/e", take="mean") == 3.0
    assert found(tmp_path, netcdf="out.nc", variable="masked", take="first") == 1.0
    for options, said in (
        ({"variable": "masked"}, "nan is not finite"),
        ({"variable": "masked", "take": "max"}, "nan is not finite"),
        ({"variable": "gone"}, "there is no variable 'gone'; there: energy, masked"),
        ({"variable": "no/e"}, "there is no variable 'no'; there: md"),
        ({"netcdf": "gone.nc"}, "there is no file gone.nc"),
    ):
        with pytest.raises(ReadError) as error:
            found(tmp_path, **{"netcdf": "out.nc", **options})
        assert said in str(error.value)
