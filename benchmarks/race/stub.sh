#!/bin/bash
# A program for the race: sleeps by its parameters, fails on some points with exit code 3, and hangs once.
# STUB_LOG gets a line for each start and each end; STUB_SCALE multiplies the sleep; start number STUB_HANGS hangs.
echo "start $$ $EPOCHREALTIME $1 $2" >>"$STUB_LOG"
if [ "$(grep -c ^start "$STUB_LOG")" = "${STUB_HANGS:-0}" ]; then exec sleep 600; fi
read -r value seconds fails < <(awk -v x="$1" -v y="$2" -v scale="${STUB_SCALE:-0}" 'BEGIN {
    a = 15 * x - 5; b = 15 * y; pi = atan2(0, -1) # the function of Branin, 0.397887 at its three minima
    value = (b - 5.1 / (4 * pi^2) * a^2 + 5 / pi * a - 6)^2 + 10 * (1 - 1 / (8 * pi)) * cos(a) + 10
    part = 137 * x + 71 * y; part -= int(part)
    printf "%.9g %.3f %d\n", value, scale * (0.2 + x), (part > 0.4 && part < 0.5) }')
[ "$seconds" = 0.000 ] || sleep "$seconds"
echo "end $$ $EPOCHREALTIME $1 $2 $value $fails" >>"$STUB_LOG"
[ "$fails" = 0 ] || exit 3
echo "loss = $value"
