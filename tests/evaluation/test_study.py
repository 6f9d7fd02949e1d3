"""A study: runs, videos and a page; what is done is never done again and never lost, whatever the folder holds."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from disca.training.network.comfy import prepare_comfy

prepare_comfy("cpu")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from disca.evaluation.__main__ import main  # noqa: E402
from disca.evaluation.side_by_side.rows import Row  # noqa: E402
from disca.evaluation.study import films  # noqa: E402
from disca.evaluation.study.page import write_page  # noqa: E402
from disca.evaluation.study.records import Case, Filmed, Record, Records  # noqa: E402
from disca.evaluation.study.settings import StudySettings  # noqa: E402
from disca.host.comparing import Runs  # noqa: E402
from disca.toy import WEIGHTS  # noqa: E402

METHODS = ["DisCa at 0 2", "reuse at 0 2"]


@pytest.fixture
def study(tmp_path):
    """Writes a study of the toy's, with changes."""

    def written(**changes) -> Path:
        settings = {
            "out": "out",
            "model": str(WEIGHTS / "meanflow.safetensors"),
            "predictor": str(WEIGHTS / "predictor.safetensors"),
            "data": "toy://shapes",
            "samples": 1,
            "seeds": [3],
            "steps": 4,
            "shift": 1.0,
            "guidance": 3.0,
            "methods": METHODS,
        }
        file = tmp_path / "study.yaml"
        file.write_text(
            yaml.safe_dump({key: value for key, value in (settings | changes).items() if value is not None})
        )
        return file

    return written


@pytest.fixture
def runs(monkeypatch) -> list[int]:
    """The steps of each run that is made."""
    made, run = [], Runs.run

    def counted(self, model, steps):
        made.append(steps)
        return run(self, model, steps)

    monkeypatch.setattr(Runs, "run", counted)
    return made


def rows(folder: Path) -> list[dict]:
    """The lines that are there, the latest of each case."""
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return [*{json.dumps([line["key"], line["case"]]): line for line in lines}.values()]


def test_a_study_has_a_row_a_latent_and_a_video_for_each_and_a_page_with_all(study, tmp_path):
    assert main([str(study(samples=2, seeds=[3, 4]))]) == 0
    found = rows(tmp_path / "out")
    assert [(line["case"]["prompt"], line["case"]["seed"], line["row"]["text"]) for line in found] == [
        (f"toy scene {number:d}", seed, text)
        for number in (900_000, 900_001)
        for seed in (3, 4)
        for text in ("every step in full", *METHODS)
    ]
    full, *others = [line["row"] for line in found[:3]]
    assert (full["full_calls"], full["error"]) == (4, 0.0)
    assert all((row["full_calls"], row["cached_calls"]) == (2, 2) and row["error"] > 0.0 for row in others)
    assert all(line["filmed"]["metrics"]["PSNR (dB)"] > 10.0 for line in found if line["row"]["error"])
    assert len(list((tmp_path / "out" / "videos").glob("*.mp4"))) == 12
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<video src='data:video/mp4;base64,") == 12 and "src='videos" not in page
    assert "prompts: 2, seeds: 2." in page and "data:image/png;base64," in page
    assert "<h2>Notes</h2>" in page and "LPIPS: not measured, " in page


def test_the_videos_of_each_method_go_to_vbench_under_their_prompts(study, tmp_path):
    main([str(study(seeds=[3, 4]))])
    folder = tmp_path / "out"
    names = [f"{number} {text}.json" for number, text in enumerate(("every step in full", *METHODS))]
    assert sorted(path.name for path in (folder / "prompts").iterdir()) == names
    arguments = [str(folder / "videos"), str(folder / "prompts" / names[1]), str(tmp_path / "named")]
    assert main(["vbench-names", *arguments]) == 0
    made = {path.name: path.read_bytes() for path in (tmp_path / "named" / "videos").iterdir()}
    videos = [
        (folder / "videos" / name).read_bytes() for name in json.loads((folder / "prompts" / names[1]).read_text())
    ]
    assert sorted(made) == [f"toy scene 900000-{i}.mp4" for i in (0, 1)] and sorted(made.values()) == sorted(videos)


def test_the_same_study_again_runs_nothing_and_has_the_same_page(study, tmp_path, runs):
    main([str(study())])
    page, made = (tmp_path / "out" / "index.html").read_text(), len(runs)
    assert main([str(study())]) == 0
    assert len(runs) == made and (tmp_path / "out" / "index.html").read_text() == page


def test_a_method_that_is_added_is_the_only_one_that_runs_and_has_the_error_of_one_run_at_once(study, tmp_path, runs):
    main([str(study(out="once", methods=[*METHODS, "FORA at 0 2"]))])
    at_once = rows(tmp_path / "once")[-1]["row"]
    main([str(study())])
    runs.clear()
    assert main([str(study(methods=[*METHODS, "FORA at 0 2"]))]) == 0
    assert runs == [1, 4, 4]  # a step that warms up, and every step in full again, to be timed on this machine now
    assert rows(tmp_path / "out")[-1]["row"]["error"] == at_once["error"]


def test_what_is_half_written_or_spoiled_is_made_again_and_nothing_else(study, tmp_path, runs):
    main([str(study())])
    folder, whole = tmp_path / "out", rows(tmp_path / "out")
    lines = (folder / "rows.jsonl").read_text().splitlines()
    of_reuse = [line for line in lines if "reuse" in line]
    kept = [line for line in lines if "reuse" not in line]
    (folder / "rows.jsonl").write_text("not JSON\n" + "\n".join([*kept, "[]", "{}", of_reuse[0][:40]]))
    disca = records_of(folder, whole[1]).latent_file(Case(**whole[1]["case"]))
    disca.write_bytes(disca.read_bytes()[:50])
    runs.clear()
    assert main([str(study())]) == 0
    assert runs == [1, 4, 4, 4]
    found = {case.method: record.row.error for case, record in records_of(folder, whole[0]).of.items()}
    assert found == {line["row"]["text"]: line["row"]["error"] for line in whole}


def records_of(folder: Path, line: dict) -> Records:
    """What is there of the settings of a line."""
    return Records(folder, line["key"], line["filmed"]["key"])


def test_a_latent_with_nan_is_none(study, tmp_path):
    main([str(study())])
    line = rows(tmp_path / "out")[1]
    records, case = records_of(tmp_path / "out", line), Case(**line["case"])
    assert records.is_done(case)
    file = records.latent_file(case)
    save_file({"latent": load_file(file)["latent"] * torch.nan}, file)
    assert not records.is_done(case)


def test_rows_of_other_settings_do_not_mix(study, tmp_path, runs):
    main([str(study())])
    runs.clear()
    assert main([str(study(steps=6))]) == 0
    assert runs == [1, 6, 6, 6]
    assert "6 steps at shift 1; prompts: 1, seeds: 1." in (tmp_path / "out" / "index.html").read_text()
    assert len({line["key"] for line in rows(tmp_path / "out")}) == 2
    runs.clear()
    assert main([str(study())]) == 0 and not runs  # those of before are still there


def test_an_interrupt_keeps_what_is_done_and_the_same_command_goes_on(study, tmp_path, monkeypatch):
    run, calls = Runs.run, []

    def interrupted(self, model, steps):
        calls.append(steps)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return run(self, model, steps)

    monkeypatch.setattr(Runs, "run", interrupted)
    assert main([str(study())]) == 130
    assert [line["row"]["text"] for line in rows(tmp_path / "out")] == ["every step in full", "DisCa at 0 2"]
    assert "DisCa at 0 2" in (tmp_path / "out" / "index.html").read_text()
    assert main([str(study())]) == 0
    assert len(calls) == 4 + 3


def test_a_method_that_fails_is_told_and_tried_again(study, tmp_path, monkeypatch):
    run = Runs.run

    def failing(self, model, steps):
        method = model.get_attachment("disca").method
        if method is not None and method.name == "reuse":
            raise RuntimeError("no <room>")
        return run(self, model, steps)

    with monkeypatch.context() as patch:
        patch.setattr(Runs, "run", failing)
        assert main([str(study())]) == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<h2>Failed</h2>" in page and "reuse at 0 2: no &lt;room&gt;" in page
    assert main([str(study())]) == 0
    assert "Failed" not in (tmp_path / "out" / "index.html").read_text()


def test_a_page_takes_no_text_for_markup(tmp_path):
    case = Case("<script>alert(1)</script>", "scene", 0, "reuse")
    settings = StudySettings("out", "model", ("reuse",), data="toy://shapes")
    records = Records(tmp_path, "key", "film")
    records.add(Record(case, Row("reuse", full_calls=1, error=0.1), Filmed("film", {"<b>": 1.0})))
    records.video_file(case).write_bytes(b"video")
    page = write_page(tmp_path / "index.html", settings, [[case]], records).read_text()
    assert "<script>" not in page and "<b>" not in page and "&lt;script&gt;alert(1)" in page


def test_a_prompt_whose_full_run_fails_does_not_hold_up_the_others(study, tmp_path, monkeypatch):
    run = Runs.run

    def failing(self, model, steps):
        if self.settings.seed == 4 and steps > 1:
            raise ValueError("NaN")
        return run(self, model, steps)

    with monkeypatch.context() as patch:
        patch.setattr(Runs, "run", failing)
        assert main([str(study(seeds=[3, 4, 5]))]) == 0
    assert [line["case"]["seed"] for line in rows(tmp_path / "out") if not line["row"]["problem"]] == [3] * 3 + [5] * 3
    assert "seed 4, every step in full: NaN" in (tmp_path / "out" / "index.html").read_text()


def test_a_video_that_cannot_be_made_does_not_hold_up_the_others(study, tmp_path, monkeypatch):
    make = films.write_video

    def failing(path, pictures, rate):
        if len(list(path.parent.glob("*.mp4"))) == 1:
            raise OSError("no room")
        make(path, pictures, rate)

    with monkeypatch.context() as patch:
        patch.setattr(films, "write_video", failing)
        assert main([str(study(methods=["reuse at 0 2"]))]) == 0
    assert "no video of reuse at 0 2: no room" in (tmp_path / "out" / "index.html").read_text()
    assert main([str(study(methods=["reuse at 0 2"]))]) == 0
    assert len(list((tmp_path / "out" / "videos").glob("*.mp4"))) == 2
    assert "no room" not in (tmp_path / "out" / "index.html").read_text()


def test_videos_of_another_vae_are_made_anew_beside_the_first(study, tmp_path, runs, monkeypatch):
    main([str(study())])
    runs.clear()
    (tmp_path / "vae.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(
        films.Films, "_loaded", lambda self: SimpleNamespace(frames=lambda latent: torch.rand(4, 16, 16, 3))
    )
    assert main([str(study(vae="vae.safetensors"))]) == 0
    assert not runs and len(list((tmp_path / "out" / "videos").glob("*.mp4"))) == 6
    assert {line["filmed"]["metrics"]["PSNR (dB)"] < 15.0 for line in rows(tmp_path / "out")[1:]} == {True}


def test_another_predictor_makes_only_its_own_runs_again(study, tmp_path, runs):
    main([str(study())])
    runs.clear()
    tensors = load_file(WEIGHTS / "predictor.safetensors")
    with safe_open(WEIGHTS / "predictor.safetensors", framework="pt") as file:
        save_file(
            {name: tensor * 1.01 for name, tensor in tensors.items()}, tmp_path / "other.safetensors", file.metadata()
        )
    assert main([str(study(predictor="other.safetensors"))]) == 0
    assert runs == [1, 4, 4]


@pytest.mark.parametrize(
    "field", [{"error": -1.0}, {"measured": float("inf")}, {"seconds": float("nan")}, {"bytes_held": 10**400}]
)
def test_a_line_with_numbers_that_no_run_has_is_passed_over(field, study, tmp_path, runs):
    main([str(study())])
    file = tmp_path / "out" / "rows.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line["row"] |= field if "reuse" in line["row"]["text"] else {}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    runs.clear()
    assert main([str(study())]) == 0
    assert runs == [1, 4, 4]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": [3, 3]}, "'seeds' has 3 twice. Take one out."),
        ({"methods": ["reus at 0"]}, "Did you mean 'reuse'"),
        ({"methods": []}, "'methods' is [], but must be a list of at least 1"),
        ({"methods": ["reuse at 0 9"]}, "asks for step 9 in full, but the run has 4 steps"),
        ({"data": None}, "The study has neither 'prompts' nor 'data'"),
        ({"prompts": ["a cat"]}, "The study has both 'prompts' and 'data'"),
        ({"prompts": ["a cat"], "data": None}, "'text_encoders' names no files to encode them with"),
        ({"model": "gone.safetensors"}, "'model' is 'gone.safetensors', but there is nothing at"),
        ({"predictor": None}, "'DisCa at 0 2' needs a Predictor for it, but none is given"),
        ({"seeds": [-1]}, "'seeds' is -1, but must be at least 0"),
        ({"step": 4}, "'step' is not a key of the run. Did you mean 'steps'"),
        ({"vae": "gone"}, "'vae' is 'gone', but there is nothing at"),
        ({"data": "gone"}, "gone"),
    ],
)
def test_a_study_that_cannot_be_made_is_refused_in_a_sentence(changes, said, study, caplog, runs):
    assert main([str(study(**changes))]) == 2
    assert re.search(re.escape(said), caplog.text) and "Traceback" not in caplog.text and not runs


def test_a_study_is_made_by_one_process_at_a_time(study, tmp_path, caplog):
    from disca.training.records.lock import FolderLock

    with FolderLock(tmp_path / "out", "This study", "made"):
        assert main([str(study())]) == 2
    assert "This study is being made by process" in caplog.text
