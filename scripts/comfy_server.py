"""A real ComfyUI server with this pack, in a folder of its own, for the quickstart and the tests."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
PATIENCE = 1200.0  # seconds: a busy machine is slow, and a server that ended is noticed at once


class Server:
    """A running server: `get` and `post` speak JSON, `log` is what it printed so far."""

    def __init__(self, base: Path, port: int, process: subprocess.Popen):
        self.base, self.port, self.process = base, port, process
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str):
        """The JSON at the path."""
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict):
        """The JSON answer to a JSON body, None if there is none."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read() or "null")

    def log(self) -> str:
        """Everything the server printed."""
        return (self.base / "server.log").read_text(errors="replace")

    def run(self, prompt: dict, timeout: float = PATIENCE) -> dict:
        """The history of a prompt in API form, once it has ended."""
        prompt_id = self.post("/prompt", {"prompt": prompt})["prompt_id"]
        return self.wait(prompt_id, timeout)

    def wait(self, prompt_id: str, timeout: float = PATIENCE) -> dict:
        """The history of a queued prompt, once it has ended; TimeoutError else, RuntimeError if the server ended."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended with {self.process.returncode}:\n{self.log()[-4000:]}")
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.1)
        raise TimeoutError(f"The prompt did not end within {timeout:g} s.")


def install(base: Path) -> None:
    """Makes the folder a place that ComfyUI can run in, with this pack among its custom nodes."""
    for folder in ("custom_nodes", "models/diffusion_models", "models/disca", "input", "output", "user"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    link = base / "custom_nodes" / "ComfyUI-DisCa"
    if not link.exists():
        link.symlink_to(PACK, target_is_directory=True)


@contextmanager
def serve(base: Path, *arguments: str) -> Iterator[Server]:
    """The server, up and answering, in the folder `base`; stopped at the end."""
    install(base)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "main.py", "--cpu", "--port", str(port), "--disable-auto-launch"]
    with open(base / "server.log", "w") as log:
        process = subprocess.Popen(
            [*command, "--base-directory", str(base), *arguments],
            cwd=os.environ["COMFYUI_PATH"],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    server = Server(base, port, process)
    try:
        _wait_until_up(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_until_up(server: Server, timeout: float = PATIENCE) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise RuntimeError(f"ComfyUI did not start:\n{server.log()[-4000:]}")
        try:
            server.get("/system_stats")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.3)
    raise TimeoutError(f"ComfyUI did not answer within {timeout:g} s:\n{server.log()[-4000:]}")
