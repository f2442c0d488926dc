"""Every image of ours, read file by file: no root, no build tool, no setuid file, no secret. Sizes are printed."""

import os
import shutil

import pytest

from tests.docker import commands
from tests.docker.checkout import copy_checkout
from tests.docker.image_scan import scan

pytestmark = pytest.mark.docker

# All but vLLM's CPU image, which takes gigabytes and minutes.
SERVICES = {"locust": "traffic", "engine-exporter": "exporter", "sim-vllm": "simulator", "llamacpp": "llamacpp"}
LARGEST_MB = {"traffic": 450, "exporter": 250, "simulator": 350, "llamacpp": 350}
SECRET = "a-secret-of-this-checkout"


@pytest.fixture(scope="module")
def built(engine, base_images, site_build_arguments, tmp_path_factory):
    """Images built from a checkout that holds secrets where a user's has them; the texts that must not be in them."""
    settings = {**base_images, **site_build_arguments, "BAKEOFF_GRAFANA_PASSWORD": SECRET}
    copy = copy_checkout(tmp_path_factory.mktemp("images"), engine, f"bakeoff-test-images-{os.getpid()}", settings)
    for name in (".env", "docker/.env", "runs/run/requests.jsonl", ".bakeoff/stack/stack.json"):
        (copy.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (copy.folder / name).write_text(f"BAKEOFF_GRAFANA_PASSWORD={SECRET}\n", encoding="utf-8")
    for service, image in SERVICES.items():
        with commands.step(f"build bakeoff/{image}"):
            command = [*engine.compose, "--project-directory", copy.folder, "--profile", "*", "build", service]
            commands.run(command, env={**copy.environment})
    yield [SECRET, *site_build_arguments.values()]
    shutil.rmtree(copy.folder)


def test_images_are_small_and_hold_nothing_that_they_need_not(engine, client, built):
    found = {}
    for name in SERVICES.values():
        seen = scan(engine, client, f"bakeoff/{name}:0.1.0", built)
        commands.note(f"image bakeoff/{name}: {seen.megabytes} MB, user {seen.user}")
        assert seen.megabytes < LARGEST_MB[name], name
        found[name] = seen.found
    assert found == {name: [] for name in found}


def test_the_scan_finds_what_it_looks_for(engine, client, base_images, tmp_path):
    base = base_images.get("PYTHON_IMAGE", "python:3.11.13-slim-bookworm")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {base}\n"
        "ENV HF_TOKEN=hf_0123456789\n"
        "RUN printf x > /usr/bin/gcc-12 && chmod u+s /usr/bin/gcc-12 && printf '%s' my-own-secret > /notes\n",
        encoding="utf-8",
    )
    image, _ = client.images.build(path=str(tmp_path), rm=True)
    try:
        found = scan(engine, client, image.id, ["my-own-secret"]).found
    finally:
        client.images.remove(image.id, force=True)
    assert {"user root", "secret in its configuration: HF_TOKEN=hf_0123456789"} <= set(found)
    assert {"/usr/bin/gcc-12: setuid or setgid", "/usr/bin/gcc-12: a build tool", "/notes: a secret"} <= set(found)
