"""Keep an engine with the base images running between test runs: `python -m tests.docker start|stop`.

`start` prints shell lines that point `docker`, Compose and the Makefile to it: eval "$(python -m tests.docker start)".
"""

from __future__ import annotations

import shlex
import sys

from tests.docker.base_images import build_base_images
from tests.docker.commands import EngineError
from tests.docker.engine import STATE, Engine, find_compose, find_engine, install_packages, require_debian_root
from tests.docker.local_engine import LocalEngine


def start() -> None:
    """Start an engine unless one answers, build the base images, print what a shell needs to use both."""
    local = LocalEngine(STATE)
    host = find_engine(local)
    if host is None:
        require_debian_root()
        host = install_packages()
    if host is None:
        local.start()
        host = local.host
    engine = Engine(host, find_compose())
    variables = engine.environment()
    print(f"export DOCKER_HOST={shlex.quote(host)} PATH={shlex.quote(variables['PATH'])}")
    for name, value in build_base_images(engine).items():
        print(f"export {name}={shlex.quote(value)}")


def main(arguments: list[str]) -> int:
    try:
        if arguments == ["start"]:
            start()
        elif arguments == ["stop"]:
            LocalEngine(STATE).stop()
        else:
            print("usage: python -m tests.docker start|stop", file=sys.stderr)
            return 2
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
