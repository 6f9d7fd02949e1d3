"""Coverage-guided fuzzing of the code that reads headers and maps layouts, and what it once found.

A short form by default; `--full` runs five minutes and prints the figures of benchmarks/RESULTS.md.
"""

import importlib.util
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE))
import headers  # noqa: E402

SECONDS = {"short": 10, "full": 300}
FOUND = sorted((HERE / "found").glob("*.safetensors"))  # each made the code raise something else once


@pytest.fixture(scope="module")
def sound():
    return headers.sound_headers()


def test_the_headers_that_edits_start_from_are_sound(sound, tmp_path):
    told = [headers.check(headers.file_of(bytes([n]), sound), tmp_path / "f.safetensors") for n in range(len(sound))]
    assert all("loaded" in each for each in told), told


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_was_found_is_refused_in_a_sentence(path, tmp_path):
    assert "loaded" not in headers.check(path.read_bytes(), tmp_path / "f.safetensors")


def test_random_edits_are_read_or_refused_in_a_sentence(sound, tmp_path):
    chance, told = random.Random(4), []
    for _ in range(400):
        data = chance.randbytes(chance.choice([4, 8, 20, 60]))
        told.append(headers.check(headers.file_of(data, sound), tmp_path / "f.safetensors"))
    assert 20 < sum("loaded" in each for each in told) < 380


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not there for this platform")
def test_headers_found_by_coverage_load_or_are_refused_in_a_sentence(pytestconfig, tmp_path, capsys):
    form = "full" if pytestconfig.getoption("--full") else "short"
    corpus, left = tmp_path / "corpus", tmp_path / "left"
    for folder in (corpus, left):
        folder.mkdir()
    for n in range(7):
        (corpus / f"sound{n}").write_bytes(bytes([n]))
    options = [f"-max_total_time={SECONDS[form]}", "-timeout=120", "-rss_limit_mb=4096", "-max_len=300", "-seed=7"]
    command = [sys.executable, str(HERE / "headers.py"), *options, f"-artifact_prefix={left}/", str(corpus)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS[form] + 1200, env=env)
    found = [path.read_bytes().hex() for path in left.iterdir()]
    assert done.returncode == 0 and not found, f"{found}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    runs = re.search(r"Done (\d+) runs in (\d+) second", done.stderr)
    covered = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", done.stderr)[-1]
    with capsys.disabled():
        print(
            f"\ncoverage-guided: {int(runs[1]):,} headers in {runs[2]} s, {covered[0]} branches covered, "
            f"corpus of {covered[2]}, nothing but modules and sentences"
        )
    assert int(runs[1]) > 50
