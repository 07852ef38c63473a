"""The tiny campaign with programs that keep a log of their own, so that what ran is not only known from the journal.

The programs append what they do to the file ``evidence``, one line each: what, task, attempt, process. ``twice`` means
that another attempt of the same task, or something that it started, was still alive.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiny_campaign import Parts

from rlctl.core.campaign import Action, Command, Decision, Start
from rlctl.core.campaign_factory import CampaignFactory

EVIDENCE = "evidence"
PROGRAM = """
import fcntl, json, os, signal, sys, time
uid, size, kind, ms = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
attempt = os.readlink("/proc/self/fd/1").rsplit(".", 2)[1]
log = os.open("evidence", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
def say(what):
    os.write(log, f"{what} {uid} {attempt} {os.getpid()}\\n".encode())
say("begin")
try:
    fcntl.flock(os.open(uid + ".lock", os.O_WRONLY | os.O_CREAT, 0o644), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    say("twice")
if kind == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        time.sleep(60)
        sys.exit()
time.sleep(1e-3 * ms * (1 + size))
if kind != "failing":
    with open(uid + ".part", "w") as file:
        json.dump({"size": size}, file)
    os.replace(uid + ".part", uid + ".json")
say("end")
sys.exit(3 if kind == "failing" else 0)
"""


class Logged(Parts):
    """Options besides those of the tiny campaign: ``stubborn`` parts ignore SIGTERM and leave a child behind."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__({"stubborn": [], "ms": 15.0, **options})

    def apply(self, action: Action) -> list[Command]:
        number = self.started
        kinds = [kind for kind in ("failing", "stubborn") if number in self.options[kind]]
        commands = super().apply(action)
        start = commands[0]
        assert isinstance(start, Start)
        size = start.spec.arguments[3]
        arguments = ("-S", "-E", "-c", PROGRAM, start.spec.uid, size, kinds[0] if kinds else "plain")
        spec = dataclasses.replace(start.spec, arguments=(*arguments, str(self.options["ms"])))
        return [Start(spec), *commands[1:]]


class Factory(CampaignFactory):
    """What stands in ``rlctl.campaigns`` as ``logged``."""

    name = "logged"
    version = 1

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    def campaign(self, seed: int) -> Logged:
        return Logged(self.options)

    def prepare(self, folder: Path, seed: int) -> None:
        (folder / "instance").write_text(str(seed))


class Remembering:
    """Its answers depend on all that it has seen: a decision or a result that is lost changes those that follow."""

    name = "remembering"

    def __init__(self) -> None:
        self.memory = 0

    def act(self, decision: Decision) -> NDArray[np.int64]:
        self.memory = (31 * self.memory + 7 * int(decision.fields["good"]) + decision.number) % 1009
        return np.array([self.memory % 3])

    def reset(self, seed: int) -> None:
        self.memory = seed

    def state(self) -> Mapping[str, Any]:
        return {"memory": self.memory}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.memory = state["memory"]
