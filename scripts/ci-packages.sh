#!/usr/bin/env bash
# Installs the Debian packages that some tests want, where that can be done; elsewhere these tests skip, and say why.
set -euo pipefail
python=${PYTHON:-python3}
packages=()

say() { echo "ci-packages: $*" >&2; }

# CPython's own tests of executors.
read -r prefix version < <($python -c 'import sys; print(sys.base_prefix, "%d.%d" % sys.version_info[:2])') || exit 0
if ! $python -c 'import test.test_concurrent_futures' 2>/dev/null; then
    if [ "$prefix" = /usr ]; then
        packages+=("libpython$version-testsuite")
    else
        say "$prefix has no test.test_concurrent_futures, and no package of Debian's brings it there"
    fi
fi

# A Slurm for scripts/slurm-testbed.sh; Open MPI's programs need its PMIx.
PATH=$PATH:/usr/sbin:/sbin command -v slurmctld >/dev/null ||
    packages+=(slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge libpmix-dev)

[ ${#packages[@]} -gt 0 ] || exit 0
root=()
[ "$(id -u)" = 0 ] || root=(sudo -n)
export DEBIAN_FRONTEND=noninteractive
if ! command -v apt-get >/dev/null; then
    say "no apt-get here to install ${packages[*]}"
elif ! "${root[@]}" true 2>/dev/null; then
    say "only root may install ${packages[*]}"
elif "${root[@]}" apt-get update -qq && "${root[@]}" apt-get install -qq --no-install-recommends "${packages[@]}"; then
    say "installed ${packages[*]}"
else
    say "${packages[*]} cannot be installed"
fi
