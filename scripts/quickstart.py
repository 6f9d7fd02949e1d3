"""The shipped quickstart_toy workflow on a real server: three toy models, one prompt, a video of them side by side."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from comfy_server import PACK, install, serve

WORKFLOW = PACK / "tests" / "workflows" / "quickstart_toy.json"


def main(base: Path) -> int:
    """Runs the workflow in the folder `base` and says what came of it; 0 if there is a video and two reports."""
    shutil.rmtree(base, ignore_errors=True)
    install(base)
    with serve(base) as server:
        _comfy(base, "tracking", "disable")
        _comfy(base, "run", "--workflow", WORKFLOW, "--host=127.0.0.1", f"--port={server.port}", "--wait")
        reports = re.findall(r"DisCa: \d+ calls.*", server.log())
    videos = [*(base / "output").rglob("*.mp4")]
    print(*reports, sep="\n")
    print("left: 50 steps with CFG, 100 calls. middle: Restricted MeanFlow. right: DisCa")
    print(f"video: {videos[0] if videos else 'none'}\nworkflow: {WORKFLOW}\nserver log: {base / 'server.log'}")
    return 0 if len(reports) == 2 and videos else 1


def _comfy(home: Path, *arguments) -> None:
    command = [f"{os.environ['TOOLS']}/comfy", "--no-json", "--skip-prompt", *map(str, arguments)]
    subprocess.run(command, check=True, env={**os.environ, "HOME": str(home), "DO_NOT_TRACK": "1"})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
