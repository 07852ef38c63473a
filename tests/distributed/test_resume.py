"""A training that was stopped goes on to the same policy, to the bit, where its environments can be saved."""

import os
import signal
from pathlib import Path

import forms
import numpy as np
import pytest
from mpi_runner import mpiexec

import rlctl
from rlctl.monitoring.progress import Silent

CONFIG = """
schema: 1
seed: 3
campaign: {{{{name: gymnasium, options: {{{{id: {id}}}}}}}}}
train:
  algorithm: {algorithm}
  decisions: 512
  num_envs: 4
  validation_instances: 0
  checkpoint_decisions: {{every}}
  distributed: {{{{mode: lockstep, envs_per_actor: 2}}}}
  options: {options}
"""
PPO = "{{n_steps: 16, n_epochs: 2, batch_size: 32, net_arch: [8]}}"
REPLAY = "learning_starts: 32, batch_size: 32, net_arch: [8]"
CONFIGS = {
    "gymnasium": CONFIG.format(id="CartPole-v1", algorithm="ppo", options=PPO),
    "dqn": CONFIG.format(
        id="CartPole-v1", algorithm="dqn", options=f"{{{{{REPLAY}, train_freq: 16, target_update: 8}}}}"
    ),
    "sac": CONFIG.format(id="Pendulum-v1", algorithm="sac", options=f"{{{{{REPLAY}}}}}"),
}
CONFIGS["campaign"] = CONFIGS["gymnasium"].replace(
    "{{name: gymnasium, options: {{id: CartPole-v1}}}}",
    "{{name: ensemble, options: {{workload: {{tasks: [4, 6]}}}}}}\nmachine: {{nodes: 8, cores: 1}}",
)
SETS = "network: attention, attention: {{width: 8}}, residual: {{rule: sjf}}"
CONFIGS["attention"] = CONFIGS["campaign"].replace("net_arch: [8]", SETS)


def config(folder: Path, name: str, every: int = 100_000) -> Path:
    path = folder / f"{name}-{every}.yaml"
    path.write_text(CONFIGS[name].format(every=every))
    return path


def weights(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "policy" / "weights.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


class Interrupts(Silent):
    """Sends this process SIGTERM after so many decisions."""

    def __init__(self, after: int) -> None:
        self.left: float = after

    def advance(self, amount: float, note: str = "") -> None:
        self.left -= amount
        if self.left <= 0:
            self.left = float("inf")
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("name", CONFIGS)
def test_in_one_process(tmp_path: Path, name: str) -> None:
    loaded = rlctl.load_config(config(tmp_path, name))
    rlctl.train(loaded, tmp_path / "through")
    with pytest.raises(KeyboardInterrupt):
        rlctl.train(loaded, tmp_path / "stopped", progress=Interrupts(192))
    assert not (tmp_path / "stopped" / "policy").exists()
    rlctl.train(loaded, tmp_path / "stopped", resume=True)
    assert same(weights(tmp_path / "through"), weights(tmp_path / "stopped"))


@pytest.mark.parametrize("name", CONFIGS if forms.full() else ["sac", "campaign"])
def test_in_lock_step_on_ranks_after_a_kill(tmp_path: Path, name: str) -> None:
    mpiexec()
    killed = tmp_path / "killed"
    assert on_ranks(config(tmp_path, name, 128), killed) == 0
    through = weights(killed)
    # The half of it, whose last checkpoint is then all there is.
    names = sorted(path.name for path in (killed / "checkpoints").iterdir())
    assert len(names) == 2
    (killed / "checkpoints" / names[-1] / "model.zip").write_bytes(b"torn")  # as a full disk would leave it
    for left in (killed / "policy").iterdir():
        left.unlink()
    assert on_ranks(config(tmp_path, name, 128), killed, "--resume") == 0
    assert same(through, weights(killed))


def on_ranks(path: Path, out: Path, *options: str) -> int:
    import subprocess
    import sys

    command = [sys.executable, "-m", "rlctl", "train", str(path), "--out", str(out), "--ranks", "3", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    print(done.stdout, done.stderr)
    return done.returncode
