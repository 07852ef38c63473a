"""What each launcher is told, in the words of its documentation."""

import pytest

from rlctl.core.errors import LaunchError
from rlctl.executors.launchers import AS_ROOT, Launcher, LaunchRequest, launch_command

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
        LaunchRequest(TWO, cores_per_rank=8, bind=True, program="/opt/ompi/bin/mpiexec"),
        "/opt/ompi/bin/mpiexec --map-by slot:PE=8 --bind-to core --host n1:2,n2:2 -n 4",
    ),
    # MPICH's Hydra, mpiexec -help: -hosts, -bind-to, -launcher
    (Launcher.MPICH, LaunchRequest(4), "mpiexec -launcher fork -bind-to none -n 4"),
    (Launcher.MPICH, LaunchRequest(2, survive=True), "mpiexec -launcher fork -bind-to none -n 2"),
    (Launcher.MPICH, LaunchRequest(UNEVEN), "mpiexec -bind-to none -hosts n1:2,n2:1 -n 3"),
    (Launcher.MPICH, LaunchRequest(TWO, cores_per_rank=2, bind=True), "mpiexec -bind-to core:2 -hosts n1:2,n2:2 -n 4"),
    # Slurm, srun(1)
    (
        Launcher.SRUN,
        LaunchRequest({"n3": 1}, job="17"),
        "srun --jobid=17 --overlap --cpu-bind=none --kill-on-bad-exit=1 --nodes=1 --ntasks=1 --ntasks-per-node=1 "
        "--nodelist=n3",
    ),
    (
        Launcher.SRUN,
        LaunchRequest(TWO, job="17", pmi="pmi2", gpus=("1",)),
        "srun --jobid=17 --overlap --cpu-bind=none --mpi=pmi2 --kill-on-bad-exit=1 --nodes=2 --ntasks=4 "
        "--ntasks-per-node=2 --nodelist=n1,n2 env -u ROCR_VISIBLE_DEVICES "
        "-u HIP_VISIBLE_DEVICES -u GPU_DEVICE_ORDINAL CUDA_VISIBLE_DEVICES=1 ZE_AFFINITY_MASK=1",
    ),
    (
        Launcher.SRUN,
        LaunchRequest(UNEVEN, job="17", flags=("--unbuffered",)),
        "srun --jobid=17 --overlap --cpu-bind=none --kill-on-bad-exit=1 --nodes=2 --ntasks=3 --nodelist=n1,n1,n2 "
        "--distribution=arbitrary --unbuffered",
    ),
    (
        Launcher.SRUN,
        LaunchRequest(TWO, cores_per_rank=4, gpus_per_rank=1, bind=True),
        "srun --exact --cpus-per-task=4 --cpu-bind=cores --gpus-per-task=1 --kill-on-bad-exit=1 --nodes=2 --ntasks=4 "
        "--ntasks-per-node=2 --nodelist=n1,n2",
    ),
    (
        Launcher.SRUN,
        LaunchRequest(2, bind=True),
        "srun --exact --cpus-per-task=1 --cpu-bind=cores --gres=none --kill-on-bad-exit=1 --nodes=1 --ntasks=2",
    ),
    (
        Launcher.SRUN,
        LaunchRequest(3, pmi="pmix", survive=True),
        "srun --overlap --cpu-bind=none --mpi=pmix --kill-on-bad-exit=0 --no-kill --nodes=1 --ntasks=3",
    ),
    # IBM Job Step Manager, jsrun: one resource set to a rank
    (
        Launcher.JSRUN,
        LaunchRequest({"h1": 6, "h2": 6}, cores_per_rank=7, gpus_per_rank=1, bind=True),
        "jsrun --nrs=12 --rs_per_host=6 --tasks_per_rs=1 --cpu_per_rs=7 --gpu_per_rs=1 --bind=packed:7",
    ),
    (
        Launcher.JSRUN,
        LaunchRequest(3),
        "jsrun --nrs=3 --rs_per_host=3 --tasks_per_rs=1 --cpu_per_rs=1 --gpu_per_rs=0 --bind=rs",
    ),
    # flux-run(1), RFC 31 for --requires
    (
        Launcher.FLUX,
        LaunchRequest(TWO, cores_per_rank=8, gpus_per_rank=2, bind=True),
        "flux run --nodes=2 --ntasks=4 --cores-per-task=8 --gpus-per-task=2 --setopt=gpu-affinity=per-task "
        "--requires=host:n1,n2 --setopt=cpu-affinity=per-task",
    ),
    (
        Launcher.FLUX,
        LaunchRequest({"n1": 1}, program="/opt/flux/bin/flux"),
        "/opt/flux/bin/flux run --nodes=1 --ntasks=1 --cores-per-task=1 --requires=host:n1 --setopt=cpu-affinity=on",
    ),
    # Cray ALPS, aprun(1): -L takes node ids
    (Launcher.APRUN, LaunchRequest({"12": 16, "13": 16}, 2, bind=True), "aprun -n 32 -N 16 -d 2 -cc depth -L 12,13"),
    (Launcher.APRUN, LaunchRequest(16), "aprun -n 16 -N 16 -d 1 -cc none"),
    # HPE PALS, mpiexec(1)
    (Launcher.PALS, LaunchRequest(TWO, 8, bind=True), "mpiexec -n 4 --ppn 2 --depth 8 --cpu-bind depth --hosts n1,n2"),
    (Launcher.PALS, LaunchRequest(4), "mpiexec -n 4 --ppn 4 --depth 1 --cpu-bind none"),
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


@pytest.mark.parametrize("launcher", [Launcher.OPENMPI, Launcher.MPICH, Launcher.APRUN, Launcher.PALS])
def test_the_chosen_gpus_are_told_by_the_environment(launcher: Launcher) -> None:
    command, environment = launch_command(launcher, LaunchRequest(2, gpus=("0", "3")))
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,3"
    assert "env" not in command
    told = launch_command(launcher, LaunchRequest(2, gpus=("0", "3"), masks=("ROCR_VISIBLE_DEVICES",)))[1]
    assert told["ROCR_VISIBLE_DEVICES"] == "0,3"
    assert "CUDA_VISIBLE_DEVICES" not in told


def test_srun_would_overwrite_the_environment_so_that_gpus_are_told_behind_it() -> None:
    command, environment = launch_command(Launcher.SRUN, LaunchRequest(1, gpus=()))
    assert "CUDA_VISIBLE_DEVICES=" in command
    assert "CUDA_VISIBLE_DEVICES" not in environment


@pytest.mark.parametrize("launcher", [Launcher.JSRUN, Launcher.FLUX, Launcher.APRUN, Launcher.PALS])
def test_uneven_ranks_are_refused_by_launchers_that_spread_evenly(launcher: Launcher) -> None:
    with pytest.raises(LaunchError, match="as many ranks on each host, not n1: 2, n2: 1"):
        launch_command(launcher, LaunchRequest(UNEVEN))


@pytest.mark.parametrize("launcher", [Launcher.JSRUN, Launcher.FLUX])
def test_a_fraction_of_a_gpu_is_refused_by_launchers_that_hand_out_whole_ones(launcher: Launcher) -> None:
    with pytest.raises(LaunchError, match=r"whole GPUs to a rank, not 0\.5"):
        launch_command(launcher, LaunchRequest(2, gpus_per_rank=0.5))


@pytest.mark.parametrize("ranks", [0, {}])
def test_a_program_has_a_rank(ranks: int | dict[str, int]) -> None:
    with pytest.raises(LaunchError, match="at least one rank"):
        launch_command(Launcher.SRUN, LaunchRequest(ranks))
