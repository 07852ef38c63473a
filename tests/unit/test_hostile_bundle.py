"""What a stranger's bundle may try: each attempt is one refusal, runs no code and writes nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import socket
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlctl.bundle import saved_policy
from rlctl.bundle.manifest import to_bytes
from rlctl.config.load import load_config
from rlctl.core.errors import PolicyError
from rlctl.plugins.registry import load_policy

N_OBS, HEADS = 4, (3, 2)


def make(folder: Path, seed: int = 0, **more: object) -> Path:
    random = np.random.default_rng(seed)
    shapes = {"0.weight": (8, N_OBS), "0.bias": (8,), "1.weight": (5, 8), "1.bias": (5,)}
    weights = {name: random.normal(size=shape) for name, shape in shapes.items()}
    manifest = {
        "name": "learned",
        "campaign": {"name": "toy", "version": 1},
        "spaces": saved_policy.describe(spaces.Box(-9, 9, (N_OBS,)), spaces.MultiDiscrete(HEADS)),
        "network": {"hidden": [8]},
        "deterministic": True,
    }
    model = folder.parent / "model.zip"
    model.write_bytes(b"not opened " * 9)
    saved_policy.save(folder, weights, manifest | more, random.normal(size=(64, N_OBS)), files=[model])
    model.unlink()
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return make(tmp_path / "home" / "bundle")


def said(bundle: Path) -> dict[str, object]:
    data = json.loads((bundle / "manifest.json").read_text())
    del data["checksum"]
    return data


def seal(bundle: Path, **changes: object) -> None:
    """Write a manifest with changes and the right checksum, as whoever makes a hostile bundle would."""
    (bundle / "manifest.json").write_bytes(to_bytes(said(bundle) | changes))


def put(bundle: Path, name: str, data: bytes) -> None:
    """Put a file into the bundle and make the manifest vouch for it."""
    (bundle / name).write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    seal(bundle, files=said(bundle)["files"] | {name: entry})


def everything(folder: Path) -> dict[str, tuple[int, str]]:
    """All that lies under a folder: kind, and content or target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        plain = stat.S_ISREG(about.st_mode) and about.st_size < 1 << 30
        content = hashlib.sha256(path.read_bytes()).hexdigest() if plain else f"{about.st_size} {about.st_mtime_ns}"
        found[str(path.relative_to(folder))] = (about.st_mode, os.readlink(path) if path.is_symlink() else content)
    return found


def refused(bundle: Path) -> str:
    """Load it; it must be one refusal of one short printable line, and must leave everything as it was."""
    home = bundle.parent.parent
    before = everything(home)
    with pytest.raises(PolicyError) as error:
        saved_policy.load(bundle)
    message = str(error.value)
    assert message.isprintable()
    assert len(message) < 600 + len(str(bundle))
    assert str(bundle) in message
    assert everything(home) == before
    return message


def peak_bytes(bundle: Path) -> int:
    """The most memory that a refusal takes."""
    tracemalloc.start()
    try:
        with pytest.raises(PolicyError):
            saved_policy.load(bundle)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class Canary:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (self.path, "code ran"))


def test_the_canary_sings_when_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))
    assert (tmp_path / "canary").read_text() == "code ran"


def npz(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def members(bundle: Path, name: str = "weights.npz") -> dict[str, bytes]:
    with zipfile.ZipFile(bundle / name) as archive:
        return {member: archive.read(member) for member in archive.namelist()}


def npy(array: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["weights.npz", "golden.npz"])
def test_pickles_are_never_loaded(bundle: Path, tmp_path: Path, name: str) -> None:
    canary = Canary(tmp_path / "canary")
    real = members(bundle, name)
    first = next(iter(real))
    shape = np.load(io.BytesIO(real[first])).shape
    objects = np.full(shape, canary, dtype=object)
    attacks = [
        pickle.dumps(canary),
        npz(real | {first: pickle.dumps(canary)}),
        npz(real | {first: npy(objects, allow_pickle=True)}),
        npz({**real, "extra.npy": npy(objects, allow_pickle=True)}),
        npz({**real, "extra.pkl": pickle.dumps(canary)}),
        # A header that says float32, over a pickle of the right length.
        npz(real | {first: real[first][:-64] + pickle.dumps(canary)[:64]}),
        # A header that is an expression.
        npz(
            real | {first: expression(f"__import__('pathlib').Path({str(canary.path)!r}).write_text('x')", real[first])}
        ),
    ]
    for attack in attacks[:5] + attacks[6:]:
        put(bundle, name, attack)
        refused(bundle)
    put(bundle, name, attacks[5])
    try:  # its bytes are numbers like any others
        saved_policy.load(bundle)
    except PolicyError:
        refused(bundle)
    assert not canary.path.exists()


def expression(code: str, array: bytes) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {code}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + array[-32:]


def test_a_pickle_in_the_zip_for_training_is_hashed_and_never_opened(bundle: Path, tmp_path: Path) -> None:
    put(bundle, "model.zip", npz({"data": pickle.dumps(Canary(tmp_path / "canary"))}))
    saved_policy.load(bundle)
    assert not (tmp_path / "canary").exists()


def test_zip_bombs_take_no_memory(bundle: Path) -> None:
    real = members(bundle)
    huge = b"\0" * (64 << 20)
    bombs = [
        npz(real | {"0.weight.npy": huge}, zipfile.ZIP_DEFLATED),
        npz(real, zipfile.ZIP_DEFLATED),
        npz(real, zipfile.ZIP_LZMA),
        npz({**real, **{f"{i}.npy": b"" for i in range(20_000)}}),
        lying(npz(real), len(real["0.weight.npy"])),
    ]
    del huge
    for bomb in bombs:
        put(bundle, "weights.npz", bomb)
        refused(bundle)
        assert peak_bytes(bundle) < 1 << 20


def lying(archive: bytes, size: int) -> bytes:
    """The first member with that size says that it has 4 GB."""
    return archive.replace(struct.pack("<II", size, size), struct.pack("<II", size, 0xFFFFFFF0))


def test_overlapping_members_give_no_more_than_their_bytes(bundle: Path) -> None:
    whole = bytearray(npz(members(bundle)))
    central = whole.find(b"PK\x01\x02")
    second = whole.find(b"PK\x01\x02", central + 4)
    whole[second + 42 : second + 46] = whole[central + 42 : central + 46]  # both begin where the first does
    put(bundle, "weights.npz", bytes(whole))
    refused(bundle)


@pytest.mark.parametrize(
    "name",
    [
        "../evil.npy",
        "/tmp/evil.npy",
        "a/../../evil.npy",
        "..\\evil.npy",
        "0.weight",
        "./0.weight.npy",
    ],
)
def test_paths_in_an_archive_lead_nowhere(bundle: Path, name: str) -> None:
    real = members(bundle)
    array = real.pop("0.weight.npy")
    put(bundle, "weights.npz", npz(real | {name: array}))
    refused(bundle)


def test_a_member_that_stands_twice_is_refused(bundle: Path) -> None:
    buffer = io.BytesIO(npz(members(bundle)))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("0.bias.npy", npy(np.zeros(8, np.float32)))
    put(bundle, "weights.npz", buffer.getvalue())
    assert "each once" in refused(bundle)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b", "..", ".", "", "a\nb", "a\x1b[2J", ".hidden", "x" * 300, "a\0"]
)
def test_paths_in_the_manifest_lead_nowhere(bundle: Path, name: str) -> None:
    seal(bundle, files=said(bundle)["files"] | {name: {"sha256": "0" * 64, "bytes": 3}})
    refused(bundle)


@pytest.mark.parametrize("name", ["manifest.json", "weights.npz", "golden.npz", "model.zip"])
@pytest.mark.parametrize("what", ["link", "dangling", "loop", "fifo", "folder", "socket", "device", "missing", "huge"])
def test_what_is_no_plain_file_of_the_right_size_is_not_read(
    bundle: Path, name: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, outside = bundle / name, bundle.parent / "outside"
    shutil.copyfile(path, outside)
    path.unlink()
    monkeypatch.chdir(bundle)  # the address of a socket is short
    if what == "link":
        path.symlink_to("../outside")  # with the right content, even
    elif what == "dangling":
        path.symlink_to(bundle.parent / "nowhere")
    elif what == "loop":
        path.symlink_to(name)
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(name)
    elif what == "device":
        try:
            os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero, which never ends
        except PermissionError:
            pytest.skip("only root makes devices")
    elif what == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    assert name in refused(bundle)


def test_the_folder_itself_may_be_a_link_but_not_a_file(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(bundle)
    assert saved_policy.load(tmp_path / "latest").name == "learned"
    with pytest.raises(PolicyError, match="no saved policy here"):
        saved_policy.load(bundle / "manifest.json")
    with pytest.raises(PolicyError, match="no saved policy here"):
        saved_policy.load(Path("a\0b"))


@pytest.mark.parametrize("name", ["manifest.json", "weights.npz", "golden.npz", "model.zip"])
def test_cut_files_are_refused_wherever_they_are_cut(bundle: Path, name: str) -> None:
    whole = (bundle / name).read_bytes()
    lengths = {*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1, len(whole) - 2}
    for length in sorted(lengths):
        (bundle / name).write_bytes(whole[:length])
        if name == "manifest.json" and whole[length:].isspace():
            saved_policy.load(bundle)  # nothing but the last line's end is gone
            continue
        refused(bundle)
        if name.endswith(".npz"):
            original = (bundle / "manifest.json").read_bytes()
            put(bundle, name, whole[:length])
            refused(bundle)  # even if the manifest vouches for it
            (bundle / "manifest.json").write_bytes(original)


@pytest.mark.parametrize("name", ["weights.npz", "golden.npz", "model.zip"])
def test_files_of_another_policy_are_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    other = make(tmp_path / "other", seed=1)
    (other / "model.zip").write_bytes(b"another")
    data = (other / name).read_bytes()
    (bundle / name).write_bytes(data)
    assert "exchanged" in refused(bundle)
    if name != "model.zip":  # nobody here can tell what is in it
        put(bundle, name, data)
        assert "golden pair" in refused(bundle)


def test_a_network_that_computes_otherwise_is_noticed_by_the_golden_pairs(bundle: Path) -> None:
    seal(bundle, network={"hidden": [8], "activation": "relu"})
    assert "golden pair" in refused(bundle)
    seal(bundle, network={"hidden": [8], "observation_clip": 0.5})
    assert "golden pair" in refused(bundle)
    seal(bundle, network={"hidden": [8]})
    saved_policy.load(bundle)
    pairs = dict(np.load(bundle / "golden.npz"))
    flipped = pairs | {"actions": np.roll(pairs["actions"], 1, axis=0)}
    put(bundle, "golden.npz", saved_policy.arrays.pack(flipped))
    assert "answers otherwise" in refused(bundle)
    put(bundle, "golden.npz", saved_policy.arrays.pack(pairs | {"logits": pairs["logits"] * np.float32("nan")}))
    assert "golden pair" in refused(bundle)


TEXTS: dict[str, Callable[[str], str]] = {
    "empty": lambda text: "",
    "a list": lambda text: "[1, 2]",
    "null": lambda text: "null",
    "a number": lambda text: "2",
    "not text": lambda text: "\udcff\udcfe" + text,
    "NaN": lambda text: text.replace('"seed": 3', '"seed": NaN'),
    "Infinity": lambda text: text.replace('"seed": 3', '"seed": -Infinity'),
    "1e999": lambda text: text.replace('"seed": 3', '"seed": 1e999'),
    "a number of a million digits": lambda text: text.replace('"seed": 3', '"seed": ' + "9" * 1_000_000),
    "deep lists": lambda text: text.replace('"seed": 3', '"seed": ' + "[" * 100_000 + "]" * 100_000),
    "deep mappings": lambda text: text.replace('"seed": 3', '"seed": ' + '{"a":' * 500 + "1" + "}" * 500),
    "deep alone": lambda text: "[" * 1_000_000,
    "a key twice": lambda text: text.replace('"seed": 3', '"seed": 3, "seed": 3'),
    "more than it may have": lambda text: text + " " * (5 << 20),
}


@pytest.mark.parametrize("change", TEXTS.values(), ids=TEXTS.keys())
def test_text_that_is_no_honest_json_is_refused(tmp_path: Path, change: Callable[[str], str]) -> None:
    (tmp_path / "home").mkdir()
    bundle = make(tmp_path / "home" / "bundle", more=1, seed_=0)
    seal(bundle, seed=3)
    text = (bundle / "manifest.json").read_text()
    changed = change(text)
    assert changed != text
    (bundle / "manifest.json").write_bytes(changed.encode("utf-8", "surrogateescape"))
    refused(bundle)


BOX = {"type": "Box", "shape": [N_OBS], "dtype": "float32", "low": -9.0, "high": 9.0}
MANY = {"type": "MultiDiscrete", "nvec": list(HEADS)}
CLAIMS: list[dict[str, object]] = [
    {"schema": 1},
    {"schema": 3},
    {"schema": True},
    {"schema": "2"},
    {"schema": [2]},
    {"name": "a\nb"},
    {"name": "\x1b[31m"},
    {"name": "../x"},
    {"name": ["learned"]},
    {"name": "x" * 100_000},
    {"campaign": {"name": "toy", "version": "1"}},
    {"campaign": {"name": "toy", "version": 1e300}},
    {"campaign": {"name": "toy", "version": 10**40}},
    {"deterministic": "yes"},
    {"network": {"hidden": [0]}},
    {"network": {"hidden": [-8]}},
    {"network": {"hidden": [8.0]}},
    {"network": {"hidden": [10**9]}},
    {"network": {"hidden": [65536] * 32}},
    {"network": {"hidden": [1] * 1000}},
    {"network": {"hidden": [8], "activation": "__import__('os')"}},
    {"network": {"hidden": [8], "observation_clip": -1.0}},
    {"network": {"hidden": [8], "unknown": 1}},
    {"golden_pairs": 1},
    {"golden_pairs": 10**12},
    {"golden_pairs": 65},
    {"observations": {"count": 1}},
    {"observations": {"count": 1, "mean": [0.0], "std": [0.0], "min": [0.0], "max": [0.0]}},
    {"files": {}},
    {"files": []},
    {"residual": {"rule": 3}},
    {"scores": [{"rows": []}]},
    {"spaces": {"observation": BOX}},
    {"spaces": {"observation": BOX, "action": {"type": "Discrete", "n": 10**18}}},
    {"spaces": {"observation": BOX, "action": {"type": "MultiDiscrete", "nvec": [10**6] * 100_000}}},
    {"spaces": {"observation": BOX, "action": {"type": "MultiDiscrete", "nvec": [0]}}},
    {"spaces": {"observation": BOX, "action": {"type": "Dict", "spaces": {"a": MANY}}}},
    {"spaces": {"observation": BOX, "action": {"type": "os.system", "n": 2}}},
    {"spaces": {"observation": BOX, "action": BOX | {"dtype": "int64"}}},
    {"spaces": {"observation": BOX, "action": BOX}},
    {"spaces": {"observation": BOX | {"shape": [10**6, 10**6]}, "action": MANY}},
    {"spaces": {"observation": BOX | {"shape": [1000] * 32}, "action": MANY}},
    {"spaces": {"observation": BOX | {"shape": [-4]}, "action": MANY}},
    {"spaces": {"observation": BOX | {"low": [0.0]}, "action": MANY}},
    {"spaces": {"observation": BOX | {"low": 10.0}, "action": MANY}},
    {"spaces": {"observation": BOX | {"dtype": "object"}, "action": MANY}},
    {"spaces": {"observation": BOX | {"dtype": "uint8", "low": None}, "action": MANY}},
    {"spaces": {"observation": BOX | {"dtype": "int8", "high": 10**30}, "action": MANY}},
    {"spaces": {"observation": nested, "action": MANY}}
    if (nested := {"type": "Tuple", "spaces": [BOX]})
    and [nested := {"type": "Tuple", "spaces": [nested]} for _ in range(13)]
    else {},
]


@pytest.mark.parametrize("claims", CLAIMS, ids=lambda claims: json.dumps(claims)[:60])
def test_a_manifest_that_claims_what_cannot_be_is_refused_before_anything_is_made_of_it(
    bundle: Path, claims: dict[str, object]
) -> None:
    seal(bundle, **claims)
    refused(bundle)
    assert peak_bytes(bundle) < 64 << 20


def test_an_edited_manifest_is_noticed(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"learned"', '"trusted"'))
    assert "edited" in refused(bundle)


@pytest.mark.parametrize("campaign", [{"name": "ensemble", "version": 1}, {"name": "block_copolymer", "version": 99}])
def test_a_bundle_of_another_campaign_or_version_is_refused(tmp_path: Path, campaign: dict[str, object]) -> None:
    shipped = Path(__file__).parents[2] / "configs"
    shutil.copytree(shipped / "policies" / "annealing-ppo", tmp_path / "bundle")
    config = load_config(shipped / "annealing.yaml")
    load_policy(config, str(tmp_path / "bundle"))
    seal(tmp_path / "bundle", campaign=campaign)
    with pytest.raises(PolicyError, match=r"was trained for .* train it for this campaign") as error:
        load_policy(config, str(tmp_path / "bundle"))
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes], np.ndarray]:
    home = tmp_path_factory.mktemp("flips") / "home"
    home.mkdir()
    bundle = make(home / "bundle")
    asked = np.random.default_rng(3).normal(size=(20, N_OBS)).astype(np.float32)
    return bundle, {p.name: p.read_bytes() for p in bundle.iterdir()}, asked


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), vouched=st.booleans())
def test_any_flipped_bytes_are_refused_or_change_nothing(
    whole: tuple[Path, dict[str, bytes], np.ndarray], data: st.DataObject, vouched: bool
) -> None:
    bundle, files, asked = whole
    for name, content in files.items():
        (bundle / name).write_bytes(content)
    expected = saved_policy.load(bundle)
    name = data.draw(st.sampled_from(sorted(files)))
    changed = bytearray(files[name])
    for at in data.draw(st.lists(st.integers(0, len(changed) - 1), min_size=1, max_size=4)):
        changed[at] ^= data.draw(st.integers(1, 255))
    (bundle / name).write_bytes(changed)
    if vouched and name != "manifest.json":
        put(bundle, name, bytes(changed))
    try:
        policy = saved_policy.load(bundle)
    except PolicyError:
        return
    if vouched and name != "manifest.json":
        # The manifest vouches for the change, so only the golden pairs can judge: it answers them all the same.
        with np.load(bundle / "golden.npz") as pairs:
            assert len(pairs["observations"]) == policy.manifest.golden_pairs
        return
    assert policy.digest == expected.digest
    assert np.array_equal(policy.logits(asked), expected.logits(asked))
