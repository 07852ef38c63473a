"""What each launcher is told, in the words of its documentation."""

import pytest

from rlctl.core.errors import LaunchError
from rlctl.system.launchers import AS_ROOT, Launcher, LaunchRequest, launch_command

TWO = {"n1": 2, "n2": 2}
UNEVEN = {"n1": 2, "n2": 1}
INSIDE_SLURM = {"SLURM_OVERLAP": "1", "SLURM_CPU_BIND": "none"}

COMMANDS = [
    # Open MPI 5, mpirun(1): --host, --map-by, --bind-to
    (Launcher.OPENMPI, LaunchRequest(4), "mpiexec --oversubscribe --bind-to none -n 4"),
    (Launcher.OPENMPI, LaunchRequest(4, survive=True), "mpiexec --with-ft ulfm --oversubscribe --bind-to none -n 4"),
    (Launcher.OPENMPI, LaunchRequest(TWO), "mpiexec --oversubscribe --bind-to none --host n1:2,n2:2 -n 4"),
    (Launcher.OPENMPI, LaunchRequest(UNEVEN), "mpiexec --oversubscribe --bind-to none --host n1:2,n2:1 -n 3"),
    (
        Launcher.OPENMPI,
        LaunchRequest(TWO, cores_per_rank=8, program="/opt/ompi/bin/mpiexec"),
        "/opt/ompi/bin/mpiexec --oversubscribe --bind-to none --host n1:2,n2:2 -n 4",
    ),
    # MPICH's Hydra, mpiexec -help: -hosts, -bind-to, -launcher
    (Launcher.MPICH, LaunchRequest(4), "mpiexec -launcher fork -bind-to none -n 4"),
    (Launcher.MPICH, LaunchRequest(2, survive=True), "mpiexec -launcher fork -bind-to none -n 2"),
    (Launcher.MPICH, LaunchRequest(UNEVEN), "mpiexec -bind-to none -hosts n1:2,n2:1 -n 3"),
    # Slurm, srun(1)
    (
        Launcher.SRUN,
        LaunchRequest({"n3": 1}, job="17"),
        "srun --jobid=17 --overlap --cpu-bind=none --kill-on-bad-exit=1 --nodes=1 --ntasks=1 --ntasks-per-node=1 "
        "--nodelist=n3",
    ),
    (
        Launcher.SRUN,
        LaunchRequest(TWO, job="17", pmi="pmi2"),
        "srun --jobid=17 --overlap --cpu-bind=none --mpi=pmi2 --kill-on-bad-exit=1 --nodes=2 --ntasks=4 "
        "--ntasks-per-node=2 --nodelist=n1,n2",
    ),
    (
        Launcher.SRUN,
        LaunchRequest(UNEVEN, job="17", flags=("--unbuffered",)),
        "srun --jobid=17 --overlap --cpu-bind=none --kill-on-bad-exit=1 --nodes=2 --ntasks=3 --nodelist=n1,n1,n2 "
        "--distribution=arbitrary --unbuffered",
    ),
    (
        Launcher.SRUN,
        LaunchRequest(3, pmi="pmix", survive=True),
        "srun --overlap --cpu-bind=none --mpi=pmix --kill-on-bad-exit=0 --no-kill --nodes=1 --ntasks=3",
    ),
]


@pytest.mark.parametrize(("launcher", "what", "command"), COMMANDS)
def test_command(launcher: Launcher, what: LaunchRequest, command: str) -> None:
    assert launch_command(launcher, what)[0] == command.split()


@pytest.mark.parametrize("launcher", list(Launcher))
def test_threads_of_a_rank_are_as_many_as_its_cores(launcher: Launcher) -> None:
    assert launch_command(launcher, LaunchRequest(1, cores_per_rank=3))[1]["OMP_NUM_THREADS"] == "3"


def test_open_mpi_may_be_started_by_root_in_a_container() -> None:
    environment = launch_command(Launcher.OPENMPI, LaunchRequest(2))[1]
    assert environment.items() >= AS_ROOT.items()


@pytest.mark.parametrize("launcher", [Launcher.OPENMPI, Launcher.MPICH])
def test_an_mpiexec_over_hosts_does_not_wait_for_other_steps_of_a_slurm_job(launcher: Launcher) -> None:
    assert launch_command(launcher, LaunchRequest(TWO))[1].items() >= INSIDE_SLURM.items()
    assert not launch_command(launcher, LaunchRequest(4))[1].keys() & INSIDE_SLURM.keys()


@pytest.mark.parametrize("ranks", [0, {}])
def test_a_program_has_a_rank(ranks: int | dict[str, int]) -> None:
    with pytest.raises(LaunchError, match="at least one rank"):
        launch_command(Launcher.SRUN, LaunchRequest(ranks))
