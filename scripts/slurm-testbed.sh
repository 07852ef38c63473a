#!/usr/bin/env bash
# A real Slurm of several nodes on this machine, to rehearse clusters without one.
#
#   scripts/slurm-testbed.sh up|down|status|env          the whole bed
#   scripts/slurm-testbed.sh kill-node|start-node n2     one node dies, with all that runs on it; and comes back
#
# Everything lies in one folder: RLCTL_TESTBED, or rlctl-slurm-UID among the temporary files. Ports are free ones.
# Before `up`: TESTBED_NODES (4), TESTBED_CPUS (4) and TESTBED_GPUS (2) of each node, which need not exist;
# TESTBED_CONF: more lines for slurm.conf. Then: eval "$(scripts/slurm-testbed.sh env)"; srun -N2 hostname
#
# Exit codes: 0 done, 1 not, 2 asked for what there is not, 3 no Slurm on this machine.
set -euo pipefail

bed=$(realpath -m "${RLCTL_TESTBED:-${TMPDIR:-/tmp}/rlctl-slurm-$(id -u)}")
export SLURM_CONF=$bed/slurm.conf PATH=$PATH:/usr/sbin:/sbin
unset "${!SLURM_JOB@}" "${!SLURM_STEP@}" "${!SLURMD_@}" # a bed is not part of the job that makes it

say() { echo "slurm-testbed: $*" >&2; }

need_slurm() {
    local program
    for program in munged slurmctld slurmd srun scontrol; do
        command -v $program >/dev/null || {
            say "no $program here: apt-get install slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge" \
                "libpmix-dev"
            exit 3
        }
    done
}

# The start time of a process, which tells it from a later one of the same number.
born() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

# Starts a daemon in the foreground and notes who it is.
daemon() {
    local name=$1
    shift
    RLCTL_TESTBED_OF=$bed/$name setsid "$@" </dev/null >>"$bed/log/$name.out" 2>&1 &
    echo "$! $(born $!)" >"$bed/run/$name.id"
}

# Whether the daemon of this name lives; sets pid.
alive() {
    local start
    [ -s "$bed/run/$1.id" ] && read -r pid start <"$bed/run/$1.id" && [ "$(born "$pid")" = "$start" ]
}

start_node() {
    mkdir -p "$bed/spool/$1" "$bed/tmp/$1"
    daemon "$1" slurmd -D -N "$1"
}

# Processes of the daemons of these names: themselves, their steps, their tasks, and all that these have started.
processes_of() {
    local name entry
    local -a of=() on=() logs=()
    for name; do
        of+=(-e "RLCTL_TESTBED_OF=$bed/$name")
        on+=(-e "SLURMD_NODENAME=$name")
        logs+=(-o -lname "$bed/log/$name.log")
    done
    {
        # A step writes its title over its environment; the log of its node stays open.
        grep -lsx slurmstepd /proc/[0-9]*/comm | sed 's/comm$/fd/' |
            xargs -r -I{} find {} -false "${logs[@]}" 2>/dev/null || true
        grep -lszxF "${of[@]}" /proc/[0-9]*/environ || true
        grep -lszxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ | xargs -r grep -lszxF "${on[@]}" || true
    } | while IFS=/ read -r _ _ entry _; do descent "$entry"; done | sort -un
}

descent() {
    local child
    [ "$1" != $$ ] || return 0
    echo "$1"
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do descent "$child"; done
}

# SIGKILL, until none is left: what dies may just have started another.
kill_all() {
    local round found
    for round in 1 2 3 4 5 6 7 8; do
        found=$(processes_of "$@")
        [ -n "$found" ] || break
        # shellcheck disable=SC2086
        kill -KILL $found 2>/dev/null || true
        sleep 0.05
    done
    for found; do rm -f "$bed/run/$found.id"; done
}

free_ports() { # of so many in a row, the first
    local port first tries
    for tries in {1..50}; do
        first=$((20000 + RANDOM % 12000))
        for ((port = first; port < first + $1; port++)); do
            if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue 2; fi
        done
        echo "$first" && return
    done
    say "no $1 free ports in a row after $tries tries" && return 1
}

write_configuration() {
    local nodes=$1 cpus=$2 gpus=$3 host memory first node gpu
    host=$(hostname -s)
    memory=$(($(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo) / nodes))
    first=$(free_ports $((nodes + 1)))
    cat >"$SLURM_CONF" <<END
ClusterName=rehearsal
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$first
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
CredType=cred/munge
# A job is started again once its old credential has run out.
AuthInfo=socket=$bed/run/munge.sock,cred_expire=5
SlurmctldPidFile=$bed/run/slurmctld.pid
SlurmdPidFile=$bed/run/slurmd.%n.pid
SlurmctldLogFile=$bed/log/slurmctld.log
SlurmdLogFile=$bed/log/%n.log
StateSaveLocation=$bed/state
SlurmdSpoolDir=$bed/spool/%n
TmpFS=$bed/tmp/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobCompType=jobcomp/filetxt
JobCompLoc=$bed/log/jobs.txt
AccountingStorageType=accounting_storage/none
MpiDefault=pmi2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=$((memory / cpus))
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
ReturnToService=2
# What is slow at a site is quick here: the end of a walltime, the death of a node.
OverTimeLimit=0
KillWait=2
UnkillableStepTimeout=5
SlurmdTimeout=5
SlurmctldTimeout=5
MessageTimeout=5
TCPTimeout=2
InactiveLimit=0
MinJobAge=300
SlurmdParameters=config_overrides
GresTypes=gpu
END
    : >"$bed/gres.conf"
    for ((node = 1; node <= nodes; node++)); do
        echo "NodeName=n$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((first + node))" \
            "Sockets=1 CoresPerSocket=$cpus ThreadsPerCore=1 RealMemory=$memory Gres=gpu:$gpus" >>"$SLURM_CONF"
        for ((gpu = 0; gpu < gpus; gpu++)); do # a GPU is a file; that of a device that does nothing
            ln -s /dev/null "$bed/run/gpu.n$node.$gpu"
            echo "NodeName=n$node Name=gpu File=$bed/run/gpu.n$node.$gpu" >>"$bed/gres.conf"
        done
    done
    echo "PartitionName=main Nodes=n[1-$nodes] Default=YES MaxTime=INFINITE State=UP" >>"$SLURM_CONF"
    printf '%b\n' "${TESTBED_CONF:-}" >>"$SLURM_CONF"
    echo "CgroupAutomount=no" >"$bed/cgroup.conf"
}

names() { sed -n 's/^NodeName=\(n[0-9]*\) NodeHostname.*/\1/p' "$SLURM_CONF" 2>/dev/null || true; }

up() {
    local nodes=${TESTBED_NODES:-4} name end
    need_slurm
    if alive slurmctld; then status && return; fi
    down
    rm -rf "$bed"/{state,run,spool,tmp,log}
    mkdir -p "$bed"/{state,run,spool,tmp,log}
    chmod 755 "$bed" "$bed/run"
    write_configuration "$nodes" "${TESTBED_CPUS:-4}" "${TESTBED_GPUS:-2}"
    (umask 077 && head -c 128 /dev/urandom >"$bed/run/munge.key")
    daemon munged munged --foreground --force --key-file="$bed/run/munge.key" --socket="$bed/run/munge.sock" \
        --pid-file="$bed/run/munged.pid" --log-file="$bed/log/munged.log" --seed-file="$bed/run/munge.seed" --num-threads=2
    end=$((SECONDS + 30))
    until [ -S "$bed/run/munge.sock" ]; do
        [ $SECONDS -lt $end ] && sleep 0.05 || break
    done
    daemon slurmctld slurmctld -D -c
    for name in $(names); do start_node "$name"; done
    while alive slurmctld && [ $SECONDS -lt $end ]; do
        if [ "$(timeout 5 sinfo -h -t idle -o %D 2>/dev/null)" = "$nodes" ]; then status && return; fi
        sleep 0.1
    done
    say "it does not come up; what its logs in $bed/log say:"
    grep -hiE 'fatal|error' "$bed"/log/* | tail -5 >&2
    down
    return 1
}

down() {
    # shellcheck disable=SC2046
    kill_all slurmctld $(names) munged
    rm -rf "$bed"/{state,run,spool,tmp}
}

status() {
    alive slurmctld || { say "down" && return 1; }
    echo "slurm-testbed: up in $bed"
    timeout 10 sinfo -N -h -o "%N %t, %c CPUs, %m MiB, %G"
}

node() {
    names | grep -qx "${1:-}" || { say "no node '${1:-}': there are $(names | tr '\n' ' ')" && exit 2; }
    echo "$1"
}

case "${1:-}" in
up | down | status) "$1" ;;
env) echo "export SLURM_CONF='$SLURM_CONF'" ;;
kill-node) kill_all "$(node "${2:-}")" ;;
start-node)
    name=$(node "${2:-}")
    alive "$name" || start_node "$name"
    ;;
*)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
