"""The shipped quickstart workflow on a real server: three toy models, one prompt, an animation of each."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from comfy_server import install, serve
from graphs_toy import PROMPT, RESULTS


def main(base: Path) -> int:
    """Runs the workflow in the folder `base` and says what came of it; 0 if there are all results and two reports."""
    shutil.rmtree(base, ignore_errors=True)
    install(base)
    print("Starting ComfyUI.", flush=True)
    with serve(base) as server:
        _comfy(base, "tracking", "disable")  # comfy-cli's own, in this folder's settings only
        print(
            "ComfyUI is up. The toy models draw, which takes ten seconds to two minutes, by how busy the processor is.",
            flush=True,
        )
        begun = time.monotonic()
        _comfy(base, "run", "--workflow", PROMPT, "--host=127.0.0.1", f"--port={server.port}", "--wait")
        took = time.monotonic() - begun
        reports = re.findall(r"DisCa: .*\b\d+ full\b.*", server.log())
    films = {name: [*(base / "output").rglob(f"toy_{name}_*.webp")] for name in RESULTS}
    print(
        *reports,
        "The results, which the next run of this command replaces; ComfyUI has ended, links to it are dead:",
        sep="\n",
    )
    for name, found in films.items():
        print(f"{RESULTS[name]}: {found[0] if found else 'none'}")
    print(f"took {took:.0f} s\nworkflow: {PROMPT}\nserver log: {base / 'server.log'}")
    return 0 if len(reports) == 2 and all(films.values()) else 1


def _comfy(home: Path, *arguments) -> None:
    command = [f"{os.environ['TOOLS']}/comfy", "--no-json", "--skip-prompt", *map(str, arguments)]
    subprocess.run(command, check=True, env={**os.environ, "HOME": str(home), "DO_NOT_TRACK": "1"})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
