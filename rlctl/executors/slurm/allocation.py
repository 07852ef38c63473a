"""The nodes of a Slurm executor: those of the job that it runs in, or of jobs that it asks for.

Nodes are numbered, as everywhere in the books; a *block* is a job and the numbers that its nodes have. What is known of
the blocks is kept in the file ``slurm.json`` of the working folder, so that a later controller finds the same nodes
under the same numbers.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlctl.core.errors import LaunchError
from rlctl.core.machine import Capacity
from rlctl.executors.devices import AMD, MASKS, NVIDIA, SELECTOR, Devices, VendorCounts, visible_devices
from rlctl.executors.local.supervisor_client import own
from rlctl.executors.slurm import commands
from rlctl.executors.slurm.commands import Job

BLOCKS, BEAT = "slurm.json", ".slurm-beat"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of Slurm for an allocation.

    Attributes:
        time_limit: as ``sbatch --time`` has it.
        arguments: further arguments of ``sbatch``, such as ``--partition=gpu``.
        abandoned_s: the allocation ends by itself when no controller has shown itself for so long.
        through: ``sbatch`` or ``psij``.
    """

    time_limit: str = "1:00:00"
    arguments: tuple[str, ...] = ()
    abandoned_s: float = 900.0
    through: str = "sbatch"


@dataclass(slots=True)
class Block:
    """A job, and the numbers that its nodes have in the books.

    Attributes:
        hosts: by number of node; empty until the job runs.
        cores, gpus: by number of node, what tasks may use there: numbers of cores, and GPUs.
        ends_at: when its time limit is reached, on the monotonic clock.
        lost: numbers of nodes that are not there at present.
        ending: whether its time limit is so near that nothing more is started.
    """

    job: int
    nodes: list[int]
    hosts: dict[int, str] = field(default_factory=dict)
    cores: dict[int, list[int]] = field(default_factory=dict)
    gpus: dict[int, Devices] = field(default_factory=dict)
    ends_at: float = float("inf")
    lost: set[int] = field(default_factory=set)
    ending: bool = False

    @property
    def left_s(self) -> float:
        """Seconds until its time limit."""
        return self.ends_at - time.monotonic()

    def to_json(self) -> dict[str, Any]:
        """For the file."""
        return {"job": self.job, "nodes": self.nodes, "hosts": {str(node): host for node, host in self.hosts.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Block:
        """From the file."""
        hosts = {int(node): host for node, host in data["hosts"].items()}
        return cls(int(data["job"]), [int(node) for node in data["nodes"]], hosts)


@dataclass(slots=True)
class Seen:
    """What Slurm says now: the blocks, and numbers of nodes that have come and gone since the last time.

    Attributes:
        doubts: nodes that were doubted before Slurm was asked.
    """

    blocks: list[Block]
    up: list[int] = field(default_factory=list)
    down: list[int] = field(default_factory=list)
    doubts: set[int] = field(default_factory=set)


class Allocation:
    """See the module. Whoever calls ``look`` and ``resize`` takes turns; ``look`` changes nothing until ``commit``.

    Attributes:
        blocks: the jobs.
        inside: whether it is the job that this process runs in, which is not ours to end or to replace.
        name: of the jobs that are asked for, and the beginning of the names of steps.

    Args:
        capacity: nodes that are wanted, with so many cores and GPUs each.
        workdir: working folder of the executor, seen by all nodes.
        request: how to ask for jobs; None: use the job that this process runs in.
        pool: name of the pool, where several work in the folder.

    Raises:
        LaunchError: there is no such job, it has fewer nodes, or Slurm refuses.
    """

    def __init__(self, capacity: Capacity, workdir: Path, request: Request | None, pool: str = "") -> None:
        self.inside = request is None
        self.name = f"rlctl-{hashlib.sha1(os.fsencode(workdir / pool)).hexdigest()[:10]}"
        self._file, self._life = workdir / own(BLOCKS, pool), workdir / own(BEAT, pool)
        self._capacity, self._workdir = capacity, workdir
        self._request = request or Request()
        self._wanted = capacity.nodes
        self._doubts: set[int] = set()
        self.blocks = self._known()
        if self.inside:
            self._take_own()
        else:
            self._beat()
            self._find()
        self._save()

    def host(self, node: int) -> str:
        """Name of a node that is there."""
        return self.block(node).hosts[node]

    def block(self, node: int) -> Block:
        """The job that a node belongs to."""
        return next(block for block in self.blocks if node in block.nodes)

    def group(self, node: int) -> int:
        """The same number for nodes of one job: ``srun`` does not reach over several."""
        return next((block.job for block in self.blocks if node in block.nodes), 0)

    def doubt(self, node: int) -> None:
        """Something was lost there: take it for gone until Slurm has been asked."""
        self._doubts.add(node)

    def there(self) -> set[int]:
        """Numbers of the nodes that can be used now."""
        here = {n for block in self.blocks if not block.ending for n in block.cores if n not in block.lost}
        return {node for node in here - self._doubts if node < self._wanted}

    def look(self) -> Seen:
        """Ask Slurm how the jobs and nodes are; ask for other jobs in place of those that have ended.

        Raises:
            LaunchError: Slurm does not answer.
        """
        seen = Seen(copy.deepcopy(self.blocks), doubts=set(self._doubts))
        self._beat()
        for block in list(seen.blocks):
            job = commands.job(block.job)
            if job is not None and job.runs:
                self._compare(block, job, seen)
            elif job is None or not job.waits:
                seen.down += [node for node in block.hosts if node not in block.lost]
                if self.inside:
                    block.lost.update(block.hosts)
                else:
                    seen.blocks.remove(block)
        if not self.inside:
            self._ask_for_more(seen.blocks)
        return seen

    def commit(self, seen: Seen) -> None:
        """From now on it is so; ``up`` and ``down`` of what was seen tell what has changed."""
        self.blocks = seen.blocks
        self._doubts -= seen.doubts
        self._save()
        there = self.there()
        seen.up = sorted(there & {*seen.up, *seen.doubts})
        seen.down = [node for node in seen.down if node not in there]

    def resize(self, nodes: int) -> None:
        """Have so many nodes, those with the lowest numbers: end jobs, let go of some of their nodes, ask for others.

        Raises:
            LaunchError: it is the job that this process runs in, or Slurm refuses.
        """
        if self.inside and nodes > len(self.blocks[0].nodes):
            raise LaunchError(
                f"{nodes} nodes are asked for, the job has {len(self.blocks[0].nodes)}: start outside for more"
            )
        self._wanted = nodes
        if self.inside:
            return
        for block in list(self.blocks):
            kept = [node for node in block.nodes if node < nodes]
            if not kept:
                self._end(block)
            elif len(kept) < len(block.nodes):
                self._shrink(block, kept)
        self._ask_for_more(self.blocks)
        self._save()

    def replace(self, block: Block) -> None:
        """End a job, and ask for another one for the same nodes.

        Raises:
            LaunchError: Slurm refuses.
        """
        self._end(block)
        self._ask_for_more(self.blocks)
        self._save()

    def close(self) -> None:
        """Give back what was asked for."""
        if self.inside:
            return
        for block in list(self.blocks):
            with contextlib.suppress(LaunchError):  # it has ended
                self._end(block)
        self._save()
        self._life.unlink(missing_ok=True)

    # Jobs.

    def _known(self) -> list[Block]:
        try:
            return [Block.from_json(data) for data in json.loads(self._file.read_bytes())]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LaunchError(f"{self._file}: damaged ({error}): remove it") from error

    def _save(self) -> None:
        path = self._file
        new = path.with_name(f".{path.name}.new")
        new.write_text(json.dumps([block.to_json() for block in self.blocks]))
        new.replace(path)

    def _take_own(self) -> None:
        number = own_job()
        if number is None:
            raise LaunchError("this is no job of Slurm: start it by sbatch or salloc, or ask for one in `submit`")
        job = commands.job(number)
        if job is None or not job.runs:
            raise LaunchError(f"job {number} does not run any more")
        if [block.job for block in self.blocks] != [number]:  # otherwise it may have lost some since
            if len(job.hosts) < self._capacity.nodes:
                raise LaunchError(
                    f"{self._capacity.nodes} nodes are asked for, job {number} has {len(job.hosts)}: "
                    "lower machine.nodes, or ask for a larger job",
                    ("machine", "nodes"),
                )
            self.blocks = [Block(number, list(range(len(job.hosts))))]
        self._compare(self.blocks[0], job, Seen([]))

    def _find(self) -> None:
        """Jobs that a former controller has asked for, also when it died before it could write their numbers down."""
        jobs = {job.number: job for job in commands.jobs_named(self.name)}
        self.blocks = [block for block in self.blocks if block.job in jobs]
        for number in jobs.keys() - {block.job for block in self.blocks}:
            end(number)  # which nodes it was for, nobody knows any more
        for block in self.blocks:
            if jobs[block.job].runs:
                self._compare(block, jobs[block.job], Seen([]))
        self._ask_for_more(self.blocks)

    def _compare(self, block: Block, job: Job, seen: Seen) -> None:
        """Nodes of a job that runs: which are new, which have gone or come back."""
        if not block.hosts:
            block.hosts = dict(zip(block.nodes, job.hosts, strict=False))
            block.lost = set(block.nodes)
        block.ends_at = time.monotonic() + job.left_s
        dead = commands.lost(list(block.hosts.values()))
        there = {node for node, host in block.hosts.items() if host in job.hosts and host not in dead}
        gone = {node for node in block.hosts if node not in there and node not in block.lost}
        block.lost |= gone
        seen.down += sorted(gone)
        back = [] if block.ending else sorted(there & block.lost)
        if any(node not in block.cores for node in there):
            self._explore(block, sorted(node for node in there if node not in block.cores))
        back = [node for node in back if node in block.cores]
        block.lost -= set(back)
        seen.up += back

    def _explore(self, block: Block, nodes: Sequence[int]) -> None:
        """What tasks may use on these nodes, as tasks see it."""
        hosts = [block.hosts[node] for node in nodes]
        gres = f"gpu:{self._capacity.gpus}" if self._capacity.gpus else "none"
        text = commands.ask(
            "srun",
            f"--jobid={block.job}",
            f"--job-name={self.name}.look",
            "--overlap",
            "--cpu-bind=none",
            f"--nodes={len(hosts)}",
            f"--ntasks={len(hosts)}",
            "--ntasks-per-node=1",
            f"--nodelist={','.join(hosts)}",
            f"--gres={gres}",
            "sh",
            "-c",
            _TELL,
        )
        told = {host: rest for host, _, rest in (line.partition("|") for line in text.splitlines())}
        for node in nodes:
            if block.hosts[node] not in told:
                continue
            cores, affinity, files, masks = told[block.hosts[node]].split("|", 3)
            if int(cores) < self._capacity.cores:
                raise LaunchError(
                    f"{self._capacity.cores} cores are asked for, job {block.job} has {cores} on {block.hosts[node]}: "
                    "lower machine.cores, or ask for more, e.g. by --exclusive",
                    ("machine", "cores"),
                )
            numbers = affinity.rpartition(":")[2].strip()
            block.cores[node] = _numbers(numbers) or list(range(int(cores)))
            gpus = block.gpus[node] = _gpus(files, masks)
            if gpus.names is not None and len(gpus.names) < self._capacity.gpus:
                raise LaunchError(
                    f"{self._capacity.gpus} GPUs are asked for, {gpus.source} allows {len(gpus.names)} on "
                    f"{block.hosts[node]}: lower machine.gpus, or ask for more, e.g. by --gres",
                    ("machine", "gpus"),
                )

    def _ask_for_more(self, blocks: list[Block]) -> None:
        have = {node for block in blocks for node in block.nodes}
        missing = [node for node in range(self._wanted) if node not in have]
        if missing:
            blocks.append(Block(self._submit(len(missing)), missing))

    def _submit(self, nodes: int) -> int:
        capacity, request = self._capacity, self._request
        gpus = [f"--gres=gpu:{capacity.gpus}"] if capacity.gpus else []
        memory = [] if capacity.memory_mb is None else [f"--mem={capacity.memory_mb}M"]
        flags = [
            f"--job-name={self.name}",
            f"--nodes={nodes}",
            "--ntasks-per-node=1",
            f"--cpus-per-task={capacity.cores}",
            "--no-kill=set",
            f"--time={request.time_limit}",
            *gpus,
            *memory,
            *request.arguments,
        ]
        beat, minutes = shlex.quote(str(self._life)), max(1, round(request.abandoned_s / 60))
        script = f'while [ -n "$(find {beat} -mmin -{minutes} 2>/dev/null)" ]; do sleep 15; done'
        return (by_psij if request.through == "psij" else by_sbatch)(flags, script, self._workdir)

    def _shrink(self, block: Block, kept: list[int]) -> None:
        if block.hosts:
            hosts = ",".join(block.hosts[node] for node in kept)
            commands.ask("scontrol", "update", f"JobId={block.job}", f"NodeList={hosts}")
        else:
            commands.ask("scontrol", "update", f"JobId={block.job}", f"NumNodes={len(kept)}")
        block.nodes = kept
        block.hosts = {node: host for node, host in block.hosts.items() if node in kept}

    def _end(self, block: Block) -> None:
        self.blocks.remove(block)
        end(block.job)

    def _beat(self) -> None:
        if not self.inside:
            self._life.touch()


_TELL = (
    'echo "$SLURMD_NODENAME|$SLURM_CPUS_ON_NODE|$(taskset -cp $$ 2>/dev/null)|'
    '$(ls -d /dev/nvidia[0-9]* /dev/kfd 2>/dev/null | tr "\\n" " ")|'
    f'$(env | grep -E "^({"|".join((*MASKS, SELECTOR))}|SLURM_STEP_GPUS)=" | tr "\\n" "\\t")"'
)
"""What a node says of itself: name, cores, affinity, files of GPUs, and masks of GPUs."""


def _gpus(files: str, masks: str) -> Devices:
    """From what a node says."""
    makers: VendorCounts = {
        maker: None for maker, file in ((NVIDIA, "/dev/nvidia"), (AMD, "/dev/kfd")) if file in files
    }
    return visible_devices(dict(mask.split("=", 1) for mask in masks.strip().split("\t") if mask), makers)


def by_sbatch(flags: Sequence[str], script: str, workdir: Path) -> int:
    """Submit a job.

    Raises:
        LaunchError: Slurm refuses; its own words.
    """
    command = ["sbatch", "--parsable", "--no-requeue", "--output=/dev/null", *flags]
    done = subprocess.run(command, input=f"#!/bin/sh\n{script}\n", capture_output=True, text=True, cwd=workdir)
    if done.returncode != 0:
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise LaunchError(f"sbatch refuses (it says: {said}): mend executor.options.submit")
    return int(done.stdout.strip().partition(";")[0])


def by_psij(flags: Sequence[str], script: str, workdir: Path) -> int:
    """Submit a job through PSI/J, for sites that have set it up.

    Raises:
        LaunchError: it is not installed, or refuses.
    """
    try:
        import psij
    except ImportError as error:
        raise LaunchError(f"PSI/J cannot be used ({error}): pip install psij-python, or leave out `through`") from error
    named = {name: value for name, _, value in (flag.removeprefix("--").partition("=") for flag in flags)}
    sizes = [int(named.pop(name)) for name in ("nodes", "ntasks-per-node", "cpus-per-task")]
    attributes = psij.JobAttributes(custom_attributes={f"slurm.{name}": value for name, value in named.items()})
    attributes.duration = None  # as the flags say
    job = psij.Job(
        psij.JobSpec(
            "/bin/sh",
            ["-c", script],
            directory=workdir,
            resources=psij.ResourceSpecV1(
                node_count=sizes[0], processes_per_node=sizes[1], cpu_cores_per_process=sizes[2]
            ),
            attributes=attributes,
            launcher="single",
        )
    )
    try:
        psij.JobExecutor.get_instance("slurm").submit(job)
    except psij.SubmitException as error:
        raise LaunchError(f"PSI/J refuses (it says: {error}): mend executor.options.submit") from error
    return int(job.native_id)


def own_job() -> int | None:
    """Number of the job that this process runs in."""
    number = os.environ.get("SLURM_JOB_ID", "")
    return int(number) if number.isdigit() else None


def end(number: int | str) -> None:
    """End a job or a step; one that has ended is as good."""
    with contextlib.suppress(LaunchError):
        commands.ask("scancel", str(number))


def _numbers(text: str) -> list[int]:
    """
    >>> _numbers("0,4-6")
    [0, 4, 5, 6]
    """
    numbers: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers
