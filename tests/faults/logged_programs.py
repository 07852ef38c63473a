"""Programs that keep a log of what they do; little is imported here, since every controller of a test does so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlctl.core.task import TaskId, TaskSpec


def shell(uid: str, code: str, *arguments: str, **options: Any) -> TaskSpec:
    return TaskSpec(TaskId(uid), executable="sh", arguments=("-c", code, uid, *arguments), **options)


# $0 is the uid, $1 where the evidence goes, $2 how long it takes, $3 how it ends in its first attempt.
LOGGED = """
echo begin ${RLCTL_TASK#*:} $$ >> "$1"; sleep $2
echo "{\\"told\\": \\"$0\\"}" > $0.new; mv $0.new $0.json
echo end ${RLCTL_TASK#*:} $$ >> "$1"
"""
ONCE = """
echo begin ${RLCTL_TASK#*:} $$ >> "$1"
if test -e once; then echo "{\\"told\\": \\"$0\\"}" > $0.json; exit 0; fi; touch once; exit 1
"""


def logged(uid: str, evidence: Path, seconds: float = 0.1, **options: Any) -> TaskSpec:
    return shell(uid, LOGGED, str(evidence), str(seconds), result_file=f"{uid}.json", **options)


def waiting(uid: str) -> TaskSpec:
    """Tells that it has begun, and ends when it may."""
    return shell(uid, "echo x >> begun; while [ ! -e go ]; do sleep 0.02; done")
