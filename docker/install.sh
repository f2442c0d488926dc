#!/bin/sh
# Make /venv from a lock file, in an image's build stage: wheels only, by hash, and no pip stays in it.
# More arguments are requirements that come first, from pip's sources or else from the index in $TORCH_INDEX_URL.
set -eu
lock=$1
shift
python3 -m venv /tools
python3 -m venv --without-pip /venv
pip() { /tools/bin/pip --python /venv/bin/python "$@"; }
install='install --no-deps --no-cache-dir --disable-pip-version-check --progress-bar off --only-binary=:all:'
for requirement in "$@"; do
  pip $install "$requirement" || PIP_EXTRA_INDEX_URL='' pip $install --index-url "$TORCH_INDEX_URL" "$requirement"
done
pip $install --require-hashes -r "$lock"
