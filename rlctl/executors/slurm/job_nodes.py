"""The nodes of a Slurm executor: those of the job that it runs in, or of jobs that it submits.

Nodes are numbered for the scheduler; a *block* is a job and the numbers of its nodes. The file ``slurm.json`` of the
working folder records the blocks, so that a later controller finds the same nodes under the same numbers.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path

from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity
from rlctl.executors.local.pid_file import of_pool
from rlctl.executors.slurm.commands import (
    NodeInventory,
    SlurmJob,
    cancel,
    current_job,
    failed_hosts,
    query_job,
    query_jobs,
    run_command,
    submit_job,
    survey,
)
from rlctl.executors.slurm.options import SubmitOptions

BLOCKS, BEAT = "slurm.json", ".slurm-beat"


@dataclass(slots=True)
class Block:
    """A job, and the numbers of its nodes.

    Attributes:
        hosts: by number of node; empty until the job runs.
        ends_at: time of its limit, on the monotonic clock.
        lost: nodes that cannot be used at present.
        ending: its limit is so near that nothing more is started.
    """

    job: int
    nodes: list[int]
    hosts: dict[int, str] = field(default_factory=dict)
    inventory: dict[int, NodeInventory] = field(default_factory=dict)
    ends_at: float = float("inf")
    lost: set[int] = field(default_factory=set)
    ending: bool = False

    @property
    def left_s(self) -> float:
        """Seconds until its time limit."""
        return self.ends_at - time.monotonic()


class JobNodes:
    """Jobs of Slurm and their numbered nodes.

    Callers of ``query`` and ``resize`` take turns; ``query`` changes nothing until ``apply``.

    Attributes:
        capacity: cores and GPUs that each node must have.
        inside: the only job is that in which this process runs; it is never ended or replaced.
        name: of submitted jobs, and prefix of the names of steps.

    Args:
        options: how to submit jobs; None: use the job in which this process runs.

    Raises:
        LaunchError: there is no such job, it has fewer nodes, or Slurm refuses.
    """

    def __init__(self, capacity: Capacity, workdir: Path, options: SubmitOptions | None, pool: str = "") -> None:
        self.inside = options is None
        self.name = f"rlctl-{hashlib.sha1(os.fsencode(workdir / pool)).hexdigest()[:10]}"
        self._file, self._heartbeat = workdir / of_pool(BLOCKS, pool), workdir / of_pool(BEAT, pool)
        self.capacity, self._workdir = capacity, workdir
        self._options = options or SubmitOptions()
        self.wanted = capacity.nodes
        self._suspects: set[int] = set()
        self._cleared: set[int] = set()  # suspects of which the last query has learned
        self.blocks = self._read()
        if self.inside:
            self._use_current_job()
        else:
            self._heartbeat.touch()
            self._recover()
        self._save()

    def block(self, node: int) -> Block:
        """The job that a node belongs to."""
        return next(block for block in self.blocks if node in block.nodes)

    def group(self, node: int) -> int:
        """The job of a node, for placement: a step of ``srun`` stays within one job."""
        return next((block.job for block in self.blocks if node in block.nodes), 0)

    def suspect(self, node: int) -> None:
        """Do not use a node until Slurm has reported on it."""
        self._suspects.add(node)

    def usable(self) -> set[int]:
        """Numbers of the nodes that can be used now."""
        there = {n for block in self.blocks if not block.ending for n in block.inventory if n not in block.lost}
        return {node for node in there - self._suspects if node < self.wanted}

    def query(self) -> tuple[list[Block], set[int]]:
        """Ask Slurm for the state of jobs and nodes, and submit jobs in place of those that have ended.

        Returns what ``apply`` needs: the blocks, and the nodes lost since the last query. Raises LaunchError.
        """
        blocks, lost = copy.deepcopy(self.blocks), set[int]()
        self._cleared = set(self._suspects)
        if not self.inside:
            self._heartbeat.touch()
        for block in list(blocks):
            job = query_job(block.job)
            if job is not None and job.runs:
                lost |= self._refresh(block, job)
            elif job is None or not job.waits:
                lost |= block.hosts.keys() - block.lost
                if self.inside:
                    block.lost.update(block.hosts)
                else:
                    blocks.remove(block)
        if not self.inside:
            self._submit_missing(blocks)
        return blocks, lost

    def apply(self, blocks: list[Block], lost: set[int]) -> set[int]:
        """Adopt what ``query`` has found; returns the nodes that are lost."""
        self.blocks = blocks
        self._suspects -= self._cleared
        self._save()
        return lost - self.usable()

    def resize(self, nodes: int) -> None:
        """Keep the nodes with the lowest numbers: end jobs, release some of their nodes, or submit others.

        Raises:
            LaunchError: the current job has fewer nodes, or Slurm refuses.
        """
        if self.inside and nodes > len(self.blocks[0].nodes):
            raise LaunchError(
                f"{nodes} nodes are asked for, the job has {len(self.blocks[0].nodes)}: start outside for more"
            )
        self.wanted = nodes
        if self.inside:
            return
        for block in list(self.blocks):
            kept = [node for node in block.nodes if node < nodes]
            if not kept:
                self._end(block)
            elif len(kept) < len(block.nodes):
                self._shrink(block, kept)
        self._submit_missing(self.blocks)
        self._save()

    def replace(self, block: Block) -> None:
        """End a job, and submit another one for the same nodes; raises LaunchError if Slurm refuses."""
        self._end(block)
        self._submit_missing(self.blocks)
        self._save()

    def close(self) -> None:
        """End the jobs that were submitted."""
        if self.inside:
            return
        for block in list(self.blocks):
            self._end(block)
        self._save()
        self._heartbeat.unlink(missing_ok=True)

    def _read(self) -> list[Block]:
        try:
            known = json.loads(self._file.read_bytes())
            return [Block(b["job"], b["nodes"], {int(n): host for n, host in b["hosts"].items()}) for b in known]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LaunchError(f"{self._file}: damaged ({error}): remove it") from error

    def _save(self) -> None:
        new = self._file.with_name(f".{self._file.name}.new")
        new.write_text(json.dumps([{"job": b.job, "nodes": b.nodes, "hosts": b.hosts} for b in self.blocks]))
        new.replace(self._file)

    def _use_current_job(self) -> None:
        number = current_job()
        if number is None:
            raise LaunchError("this is no job of Slurm: start it by sbatch or salloc, or ask for one in `submit`")
        job = query_job(number)
        if job is None or not job.runs:
            raise LaunchError(f"job {number} does not run any more")
        if [block.job for block in self.blocks] != [number]:  # a known job may have lost nodes since
            if len(job.hosts) < self.capacity.nodes:
                raise LaunchError(
                    f"{self.capacity.nodes} nodes are asked for, job {number} has {len(job.hosts)}: "
                    "lower machine.nodes, or ask for a larger job",
                    ("machine", "nodes"),
                )
            self.blocks = [Block(number, list(range(len(job.hosts))))]
        self._refresh(self.blocks[0], job)

    def _recover(self) -> None:
        """Find the jobs of a former controller, also of one that died before it could record their numbers."""
        jobs = {job.number: job for job in query_jobs(self.name)}
        self.blocks = [block for block in self.blocks if block.job in jobs]
        for number in jobs.keys() - {block.job for block in self.blocks}:
            cancel(number)  # its node numbers are unknown
        for block in self.blocks:
            if jobs[block.job].runs:
                self._refresh(block, jobs[block.job])
        self._submit_missing(self.blocks)

    def _refresh(self, block: Block, job: SlurmJob) -> set[int]:
        """Update the nodes of a running job; returns those that are newly lost."""
        if not block.hosts:
            block.hosts = dict(zip(block.nodes, job.hosts, strict=False))
            block.lost = set(block.nodes)
        block.ends_at = time.monotonic() + job.left_s
        failed = failed_hosts(list(block.hosts.values()))
        there = {node for node, host in block.hosts.items() if host in job.hosts and host not in failed}
        lost = block.hosts.keys() - there - block.lost
        block.lost |= lost
        if new := {block.hosts[node]: node for node in sorted(there - block.inventory.keys())}:
            found = survey(block.job, list(new), f"{self.name}.look", self.capacity)
            block.inventory |= {new[host]: inventory for host, inventory in found.items()}
        if not block.ending:
            block.lost -= there & block.inventory.keys()
        return lost

    def _submit_missing(self, blocks: list[Block]) -> None:
        """Submit a job for the wanted nodes that belong to no block."""
        have = {node for block in blocks for node in block.nodes}
        missing = [node for node in range(self.wanted) if node not in have]
        if not missing:
            return
        capacity, options = self.capacity, self._options
        flags = [
            f"--job-name={self.name}",
            f"--nodes={len(missing)}",
            "--ntasks-per-node=1",
            f"--cpus-per-task={capacity.cores}",
            "--no-kill=set",
            f"--time={options.time_limit}",
            *([f"--gres=gpu:{capacity.gpus}"] if capacity.gpus else []),
            *([] if capacity.memory_mb is None else [f"--mem={capacity.memory_mb}M"]),
            *options.arguments,
        ]
        beat, minutes = shlex.quote(str(self._heartbeat)), max(1, round(options.abandoned_s / 60))
        script = f'while [ -n "$(find {beat} -mmin -{minutes} 2>/dev/null)" ]; do sleep 15; done'
        blocks.append(Block(submit_job(flags, script, self._workdir), missing))

    def _shrink(self, block: Block, kept: list[int]) -> None:
        size = f"NodeList={','.join(block.hosts[node] for node in kept)}" if block.hosts else f"NumNodes={len(kept)}"
        run_command("scontrol", "update", f"JobId={block.job}", size)
        block.nodes = kept
        block.hosts = {node: host for node, host in block.hosts.items() if node in kept}

    def _end(self, block: Block) -> None:
        self.blocks.remove(block)
        cancel(block.job)
