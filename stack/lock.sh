#!/usr/bin/env bash
# Renew the lock files from pyproject.toml and the requirements.in of engines, images and Grafana's client. Needs uv (https://docs.astral.sh/uv/).
set -euo pipefail
cd "$(dirname "$0")/.."
compile() {
  uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet "$@"
}
compile pyproject.toml --group dev --output-file requirements.lock
compile grafana/annotator/requirements.in --output-file grafana/annotator/requirements.lock
compile tests/docker/compose.in --output-file tests/docker/compose.lock
compile stack/engines/llamacpp/requirements.in --output-file stack/engines/llamacpp/requirements.lock
compile docker/llamacpp/requirements.in --constraint stack/engines/llamacpp/requirements.lock \
  --output-file docker/llamacpp/requirements.lock
# Images hold the very versions that the tests ran with.
for image in traffic exporter simulator; do
  compile "docker/$image/requirements.in" --constraint requirements.lock --output-file "docker/$image/requirements.lock"
done
left_out=()
while read -r name; do
  [[ $name == \#* || -z $name ]] || left_out+=(--no-emit-package "$name")
done <stack/engines/vllm/left-out.txt
compile stack/engines/vllm/requirements.in --override stack/engines/vllm/overrides.txt \
  "${left_out[@]}" --output-file stack/engines/vllm/requirements.lock
# vLLM on a GPU is of one version, as an image and as a wheel: compose.yaml names it.
version=$(sed -nE 's|.*vllm/vllm-openai:v([0-9.]+).*|\1|p' compose.yaml)
echo "vllm==$version" | compile --no-build - --output-file stack/engines/vllm/requirements-gpu.lock
