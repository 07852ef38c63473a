"""Functions of a script in workers: they share one namespace there, as in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PATIENCE_S = 120.0

SCRIPT = """
import collections, dataclasses, enum, functools, threading
from rlctl.executors import LocalExecutor as Pool

COUNT = 0
DATA = None
KEPT = []
MISSING = object()

def begin(data):
    global DATA, NEW
    DATA = NEW = data

def at(i): return DATA[i], NEW[i]

def count():
    global COUNT
    COUNT += 1
    return COUNT

def keep(x):
    KEPT.append(x)
    return len(KEPT)

def missing(x=MISSING): return x is MISSING

def also_missing(): return missing(MISSING)

class Base:
    kinds = {}
    hits = 0
    def __init_subclass__(cls, **options): Base.kinds[cls.__name__] = cls
    def hit(self):
        type(self).hits += 1
        return type(self).hits

class Kind(Base): pass

ONE = Kind()

def same(x): return isinstance(x, Kind) and isinstance(x, Base) and Base.kinds["Kind"] is Kind and type(ONE) is type(x)

def make(): return Kind()

def hit(): return make().hit()

@functools.lru_cache
def slow(x): return count()

def hits():
    slow(3)
    return slow.cache_info().hits

class Colour(enum.Enum):
    RED = 1

Point = collections.namedtuple("Point", "x y")

@dataclasses.dataclass
class Row:
    x: int = 1
    def next(self): return Row(self.x + 1)

class Wrong(Exception): pass

def wrong(): raise Wrong("as expected")

def factorial(n): return 1 if n == 0 else n * factorial(n - 1)

TABLE = [factorial]

def table(): return TABLE[0](3), TABLE[0] is factorial

def outer():
    k = 3
    return lambda x: x + k + len(KEPT)

LOCK = threading.Lock()

def locked(): return LOCK

with Pool(max_workers=1) as pool:
    def run(function, *arguments): return pool.submit(function, *arguments).result()
    print(run(count), run(count), run(count))
    COUNT = 10
    print(run(count), run(count), COUNT)
    print(run(keep, "a"), run(keep, "a"))
    KEPT.append("here")
    print(run(keep, "a"), KEPT)
    print(run(missing), run(also_missing))
    print(run(same, Kind()), run(same, run(make)), isinstance(run(make), Kind), run(hit), run(hit), run(count))
    print(run(hits), run(hits), run(hit))
    print(run(lambda: Colour.RED) is Colour.RED, type(run(lambda: Point(1, 2))) is Point, run(Row(1).next) == Row(2))
    try:
        run(wrong)
    except Wrong as error:
        print(error)
    partial = functools.partial(factorial, 4)
    print(run(factorial, 5), run(table), run(outer(), 1), run(partial), run(lambda: make) is make)
    try:
        run(locked)
    except Exception as error:
        print(error)
    def count(): return "defined anew"
    print(run(count), run(lambda: __name__))
with Pool(max_workers=2, initializer=begin, initargs=([10, 20],)) as pool, Pool(max_workers=1) as other:
    print(list(pool.map(at, range(2))), other.submit(lambda: DATA).result(), DATA)
"""

SAID = """\
1 2 3
11 12 10
1 2
2 ['here']
True True
True True True 1 2 13
0 1 3
True True True
as expected
120 (6, True) 6 24 True
LOCK, which the function uses: TypeError: cannot pickle '_thread.lock' object
defined anew __main__
[(10, 10), (20, 20)] None None
"""


@pytest.mark.parametrize("way", ["file", "input", "command", "module"])
def test_functions_of_a_script_share_its_globals_and_keep_them(tmp_path: Path, way: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = {"file": [str(script)], "input": ["-"], "command": ["-c", SCRIPT], "module": ["-m", "script"]}[way]
    done = subprocess.run(
        [sys.executable, *command],
        input=SCRIPT if way == "input" else "",
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.stdout == SAID, done.stderr
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_pool_of_the_standard_library_and_this_one_agree(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        """
from concurrent.futures import ProcessPoolExecutor
from rlctl.executors import LocalExecutor
COUNT = 0
def begin(data):
    global DATA
    DATA = data
def work(i): return DATA[i]
def count():
    global COUNT
    COUNT += 1
    return COUNT
if __name__ == "__main__":
    for Pool in (ProcessPoolExecutor, LocalExecutor):
        with Pool(max_workers=1) as pool:
            print([pool.submit(count).result() for _ in range(3)])
        with Pool(max_workers=1, initializer=begin, initargs=([10, 20],)) as pool:
            print(list(pool.map(work, range(2))))
"""
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout.splitlines() == ["[1, 2, 3]", "[10, 20]"] * 2, done.stderr
