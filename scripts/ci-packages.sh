#!/usr/bin/env bash
# Installs the Debian packages that some tests want, where that can be done; elsewhere these tests skip, and say why.
set -euo pipefail
python=${PYTHON:-python3}
export PATH=$PATH:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive

say() { echo "ci-packages: $*" >&2; }

command -v "$python" >/dev/null || exit 0
read -r prefix version < <($python -c 'import sys; print(sys.base_prefix, "%d.%d" % sys.version_info[:2])')

missing() { # the packages of what is not here
    local program package
    # CPython's own tests of executors.
    if [ "$prefix" = /usr ] && ! $python -c 'import test.test_concurrent_futures' 2>/dev/null; then
        echo "libpython$version-testsuite"
    fi
    # A Slurm for scripts/slurm-testbed.sh, and programs that examples/ steers: each thing by itself, since a site may
    # have some of it.
    while read -r program package; do
        command -v "$program" >/dev/null || echo "$package"
    done <<<'slurmctld slurmctld
slurmd slurmd
srun slurm-client
munged munge
xtb xtb
nwchem nwchem
gmx gromacs'
    # How ranks find each other: the plugins of Debian's Slurm, and the library that they load by this name.
    case $(command -v srun) in
    '' | /usr/bin/srun | /bin/srun) compgen -G '/usr/lib/*/slurm*/mpi_pmix.so' >/dev/null || echo slurm-wlm-basic-plugins ;;
    esac
    $python -c 'import ctypes; ctypes.CDLL("libpmix.so")' 2>/dev/null || echo libpmix-dev
}

if [ "$prefix" != /usr ] && ! $python -c 'import test.test_concurrent_futures' 2>/dev/null; then
    say "$prefix has no test.test_concurrent_futures, and no package of Debian's brings it there"
fi
mapfile -t packages < <(missing)
[ ${#packages[@]} -gt 0 ] || exit 0
root=()
[ "$(id -u)" = 0 ] || root=(sudo -n)
if ! command -v apt-get >/dev/null; then
    say "no apt-get here to install ${packages[*]}"
elif ! "${root[@]}" true 2>/dev/null; then
    say "only root may install ${packages[*]}"
elif "${root[@]}" apt-get update -qq && "${root[@]}" apt-get install -qq --no-install-recommends "${packages[@]}"; then
    say "installed ${packages[*]}"
    mapfile -t packages < <(missing)
    [ ${#packages[@]} -eq 0 ] || say "not found all the same: what comes with ${packages[*]}"
else
    say "${packages[*]} cannot be installed"
fi
