#!/usr/bin/env bash
# `make demo`: set up, race both engines on the smoke scenario, write the report, and always take the stack down again.
set -uo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
began=$SECONDS

# The stack goes down however this ends, and the exit status stays that of what went wrong first.
finish() {
  status=$?
  trap '' INT TERM
  "$python" -m stack down --runtime processes || status=$((status ? status : 2))
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$python" -m stack setup --runtime processes || exit
"$python" -m stack up --runtime processes --engine none || exit
# 6: this machine is too busy for a verdict. The report tells, and is what the demo is for.
"$python" -m loadgen bench smoke || { status=$?; [ "$status" -eq 6 ] || exit "$status"; }
# The race has printed its table already.
"$python" -m loadgen report --brief || exit
echo "done in $(((SECONDS - began) / 60)) min $(((SECONDS - began) % 60)) s"
