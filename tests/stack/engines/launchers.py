"""Recorders in place of the engines: each writes down how it was started, and ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
RECORDER = """\
import json, os, sys
with open(os.environ["RECORDING"], "w") as file:
    json.dump({"pid": os.getpid(), "argv": sys.argv, "orig": sys.orig_argv, "cwd": os.getcwd(),
               "environment": dict(os.environ)}, file)
"""
QWEN = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "torch_dtype": "bfloat16"}


class Launch:
    """A place with recorders, a model folder, and what the last launcher said and left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "CUDA_VISIBLE_DEVICES": "0,1,2,3",
            "RECORDING": str(folder / "recording.json"),
            "BAKEOFF_MODEL": str(folder / "models" / "qwen"),
            "BAKEOFF_LAUNCH_RECORD": str(folder / "run" / "launch.json"),
            "BAKEOFF_STATE_DIR": str(folder / "state"),
            "PYTHONPATH": str(folder / "image"),
            "GIT_PROJECT_REPO_ROOT": str(folder / "KsanaLLM"),
        }
        self.model(QWEN)
        server = folder / "image" / "vllm" / "entrypoints" / "openai" / "api_server.py"
        server.parent.mkdir(parents=True)
        for package in (server.parent, server.parent.parent, server.parent.parent.parent):
            (package / "__init__.py").touch()
        server.write_text(RECORDER)
        package = folder / "image" / "sglang"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "launch_server.py").write_text(RECORDER)
        self.ksana = folder / "KsanaLLM" / "src" / "ksana_llm" / "python"
        (self.ksana / "lib").mkdir(parents=True)
        (self.ksana / "lib" / "libtorch_serving.so").touch()
        (self.ksana / "openaiapi").mkdir()
        (self.ksana / "serving_server.py").write_text(RECORDER)

    def model(self, config: dict[str, Any]) -> None:
        """Put a model's config.json in its place."""
        path = self.folder / "models" / "qwen" / "config.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(config))

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a launcher to its end; the recording and the record are read by `recording` and `record`."""
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        out, err = self.process.communicate(timeout=300)
        return subprocess.CompletedProcess(command, self.process.returncode, out, err)

    def launch(self, engine: str, block: dict[str, Any] | None = None, **environment: str) -> Any:
        """Run the launcher of a GPU engine with a serving block."""
        asked = {} if block is None else self.serving(json.dumps(block))
        program = {"vllm": "vllm/serve_gpu.py", "ksana": "ksana/serve.py", "sglang": "sglang/serve.py"}[engine]
        return self.run(str(ROOT / "stack" / "engines" / program), **asked, **environment)

    def serving(self, text: str) -> dict[str, str]:
        """Write the file of serving settings; the variable that names it."""
        path = self.folder / "serving.json"
        path.write_text(text)
        return {"BAKEOFF_SERVING_FILE": str(path)}

    @property
    def recording(self) -> dict[str, Any]:
        return json.loads((self.folder / "recording.json").read_text())

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.folder / "run" / "launch.json").read_text())

    def plain(self, value: Any) -> Any:
        """Replace what differs from place to place: this folder, and the Python."""
        text = json.dumps(value).replace(str(self.folder), "/image").replace(json.dumps(sys.executable), '"python3"')
        return json.loads(text)
