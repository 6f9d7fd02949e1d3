"""The tree is clean, and what the registry would get is the pack and nothing else."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
TOOLS = os.environ.get("TOOLS")
SHIPPED = {
    "__init__.py",
    "disca",
    "nodes",
    "web",
    "locales",
    "example_workflows",
    "training",
    "evaluation",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
}

pytestmark = pytest.mark.skipif(not TOOLS, reason="TOOLS is not set: run scripts/test.sh")


def run(*command: str, cwd: Path = PACK) -> str:
    env = {**os.environ, "HOME": str(cwd / ".cli-home"), "DO_NOT_TRACK": "1"} if cwd != PACK else None
    done = subprocess.run([f"{TOOLS}/{command[0]}", *command[1:]], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The files that git has or would add, as a checkout of their own."""
    if shutil.which("git") is None:
        pytest.skip("git is needed to see what the archive holds")
    folder = tmp_path_factory.mktemp("checkout")
    git = ["git", "-C", str(PACK), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in filter(None, subprocess.run(git, capture_output=True, text=True, check=True).stdout.split("\0")):
        if (PACK / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PACK / name, folder / name)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    run("comfy", "--skip-prompt", "tracking", "disable", cwd=folder)
    return folder


def test_ruff_finds_nothing():
    run("ruff", "check", ".")
    run("ruff", "format", "--check", ".")


def test_comfy_cli_finds_the_pack_valid(checkout):
    told = run("comfy", "--no-json", "--skip-prompt", "node", "validate", cwd=checkout)
    assert "warning" not in told.lower(), told


def test_the_archive_holds_the_pack_and_nothing_else(checkout):
    run("comfy", "--no-json", "--skip-prompt", "node", "pack", cwd=checkout)
    with zipfile.ZipFile(checkout / "node.zip") as archive:
        names = archive.namelist()
    assert {Path(name).parts[0] for name in names} == SHIPPED
    assert sum(Path(name).suffix == ".py" for name in names) > 20


def test_the_pack_starts_no_processes_and_opens_no_connections():
    forbidden = ("subprocess", "os.system", "pickle", "requests", "urllib", "socket")
    shipped = [PACK / "__init__.py", *(PACK / "nodes").rglob("*.py"), *(PACK / "disca").rglob("*.py")]
    imports = [line for path in shipped for line in path.read_text().splitlines() if "import" in line]
    assert not [line for line in imports if any(word in line for word in forbidden)]


def test_the_version_is_in_the_changelog():
    version = next(line for line in (PACK / "pyproject.toml").read_text().splitlines() if line.startswith("version"))
    assert "## " + version.split('"')[1] in (PACK / "CHANGELOG.md").read_text()
