#!/usr/bin/env bash
# `make demo`: set up, race two engines, write the report, and always take the stack down again.
set -uo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
began=$SECONDS
lock=.bakeoff/demo.lock
taken=7 # exit status of `up --new` where a stack is up already

# One demo at a time. The lock ends with this shell, however it ends: no command below inherits it.
step() { "$python" -m "$@" 9>&-; }
mkdir -p .bakeoff && exec 9<>"$lock" || exit 2
if command -v flock >/dev/null && ! flock --nonblock 9; then
  echo "error: a demo runs in this folder already: $(cat "$lock"). It is left alone. Let it end, or stop it with" \
    "Ctrl-C where it runs; for two at once, clone into a second folder." >&2
  exit 2
fi
echo "process $$ of $(id -un), since $(date +%H:%M)" >"$lock"

# The stack that this demo started goes down however it ends, and the exit status stays that of what went wrong first.
mine=
finish() {
  status=$?
  trap '' INT TERM
  [ -z "$mine" ] || step stack down --runtime processes || status=$((status ? status : 2))
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The GPU's engines where it has some, else the CPU's.
plan=$(step stack demo-plan) || exit
read -r profile scenario engines <<<"$plan"
[ -z "$engines" ] || export BAKEOFF_ENGINES="$engines"
own=(--runtime processes --profile "$profile")
step stack check "${own[@]}" --new --free-ports || exit 2
step stack setup "${own[@]}" || exit
mine=yes
step stack up "${own[@]}" --engine none --new --free-ports || {
  status=$?
  [ "$status" -ne "$taken" ] || mine=
  exit "$status"
}
# 6: this machine is too busy for a verdict. The report tells, and is what the demo is for.
run=.bakeoff/demo.run
rm -f "$run"
step loadgen bench "$scenario" --tell-folder "$run" || { status=$?; [ "$status" -eq 6 ] || exit "$status"; }
# The race has printed its table already.
step loadgen report --brief "$(cat "$run")" || exit
echo "done in $(((SECONDS - began) / 60)) min $(((SECONDS - began) % 60)) s"
