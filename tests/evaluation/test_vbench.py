"""VBench's scores are its leaderboard's, names are those it looks for, and what is missing or damaged is said."""

import json

import pytest

from disca.evaluation.__main__ import main
from disca.evaluation.vbench import names as vbench_names
from disca.evaluation.vbench.names import name_of, named, notes, rows_of, write
from disca.evaluation.vbench.scores import DIMENSIONS, QUALITY, SEMANTIC, Scores, read_scores, total

# Veo 3's row of 2025-08-06 on huggingface.co/spaces/Vchitect/VBench_Leaderboard, in percent to two places.
VEO_3 = {
    "subject_consistency": 97.36,
    "background_consistency": 96.89,
    "temporal_flickering": 99.30,
    "motion_smoothness": 99.16,
    "dynamic_degree": 72.43,
    "aesthetic_quality": 63.81,
    "imaging_quality": 68.23,
    "object_class": 93.89,
    "multiple_objects": 82.20,
    "human_action": 99.40,
    "color": 82.48,
    "spatial_relationship": 84.26,
    "scene": 57.43,
    "appearance_style": 23.55,
    "temporal_style": 25.97,
    "overall_consistency": 27.88,
}
SEMANTIC_OF_IT, QUALITY_OF_IT, TOTAL_OF_IT = 82.49, 85.70, 85.06
MEASURED = {name: percent / 100 for name, percent in VEO_3.items()}
# Semantic, Quality and Total in DisCa's paper: HunyuanVideo, MeanFlow at 20 and 10 steps, DisCa at N = 2, 3, 4
PAPER = [
    (73.5, 81.5, 79.9),
    (66.6, 81.8, 78.8),
    (60.9, 80.6, 76.7),
    (70.8, 81.9, 79.7),
    (70.3, 81.8, 79.5),
    (69.3, 81.1, 78.8),
]


def save(folder, results, name="results_eval_results.json"):
    """A file as VBench writes it: a score, then one of each video."""
    made = {key: [score, [{"video_path": "a.mp4", "video_results": score}]] for key, score in results.items()}
    (folder / name).write_text(json.dumps(made), encoding="utf-8")
    return folder


def test_a_row_of_the_leaderboard_comes_out_as_it_is_published():
    scores = Scores(MEASURED)
    found = [100 * value for value in (scores.semantic, scores.quality, scores.total)]
    assert found == pytest.approx([SEMANTIC_OF_IT, QUALITY_OF_IT, TOTAL_OF_IT], abs=0.01)


@pytest.mark.parametrize("row", PAPER)
def test_the_papers_totals_are_one_part_semantic_and_four_parts_quality(row):
    semantic, quality, whole = row
    assert total(semantic, quality) == pytest.approx(whole, abs=0.1), "of numbers with one place"


def test_dimensions_at_the_ends_of_their_ranges_are_0_and_1():
    for end, whole in ((0, 0.0), (1, 1.0)):
        scores = Scores({name: one[end] for name, one in DIMENSIONS.items()})
        assert [scores.semantic, scores.quality, scores.total] == pytest.approx([whole] * 3)


def test_dynamic_degree_counts_half():
    low = {name: one.low for name, one in DIMENSIONS.items()}
    assert Scores(low | {"dynamic_degree": 1.0}).quality == pytest.approx(0.5 / 6.5)
    assert Scores(low | {"imaging_quality": 1.0}).quality == pytest.approx(1.0 / 6.5)


def test_results_of_several_files_make_one_score(tmp_path):
    below = tmp_path / "semantic"
    below.mkdir()
    save(tmp_path, {name: MEASURED[name] for name in QUALITY}, "a_eval_results.json")
    save(below, {name.replace("_", " "): MEASURED[name] for name in SEMANTIC}, "b_eval_results.json")
    save(tmp_path, {"scene": 0.1}, "a_full_info.json")
    assert read_scores(tmp_path).measured == MEASURED


def test_the_command_prints_every_dimension_and_the_scores(tmp_path, capsys):
    assert main(["vbench-score", str(save(tmp_path, MEASURED))]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*DIMENSIONS, "Semantic", "Quality", "Total"]
    assert lines[0].split() == ["subject_consistency", "97.36%", "96.91%"] and lines[-1].split() == ["Total", "85.06%"]


def test_without_a_dimension_there_is_no_total_but_what_there_is(tmp_path, capsys):
    save(tmp_path, {name: score for name, score in MEASURED.items() if name not in ("scene", "color")})
    assert main(["vbench-score", str(tmp_path)]) == 1
    said = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "scene" not in said and said["human_action"].split()[1] == "99.40%"
    assert said["Semantic"].endswith("none without 'color', 'scene'") and said["Quality"].split()[1] == "85.70%"
    assert said["Total"].endswith("none without 'color', 'scene'")


def test_dimensions_of_another_benchmark_are_named_and_not_counted(tmp_path):
    scores = read_scores(save(tmp_path, MEASURED | {"i2v_subject": 0.9}))
    assert scores.measured == MEASURED
    assert [*scores.lines()][-1] == "not counted, none of VBench's 16 dimensions: 'i2v_subject'"


def test_a_mean_that_rounding_put_above_1_is_taken(tmp_path):
    assert read_scores(save(tmp_path, {"human_action": 1.0 + 1e-9})).measured["human_action"] > 1.0


@pytest.mark.parametrize("score", [70.83, 1.01, -0.1, float("nan"), float("inf"), pytest.param(10**400, id="huge")])
def test_a_score_outside_0_to_1_is_refused(score, tmp_path):
    with pytest.raises(ValueError, match="'scene' is .*, but VBench's scores are 0 to 1. Divide percentages by 100"):
        read_scores(save(tmp_path, {"scene": score}))


@pytest.mark.parametrize("value", [0.5, None, "0.5", [], [True], ["0.5"], [None], [[0.5]], {"score": 0.5}])
def test_what_is_no_score_is_refused(value, tmp_path):
    (tmp_path / "_eval_results.json").write_text(json.dumps({"scene": value}))
    with pytest.raises(ValueError, match="'scene' is .*, where VBench writes a list that begins with the score"):
        read_scores(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"scene": [0.5, [', "is not complete JSON: it breaks off or is damaged at line 1"),
        ("", "is not complete JSON"),
        ("[" * 100_000, "is not complete JSON"),
        ("[0.5]", "holds 'list', where names with values are needed"),
        ("{}", "has no results in it"),
        (b'{"scene\xff": 1}', "is no text in UTF-8"),
    ],
)
def test_a_damaged_file_is_refused(text, said, tmp_path):
    (tmp_path / "a_eval_results.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=said):
        read_scores(tmp_path)


def test_a_dimension_in_two_files_counts_once_if_they_agree(tmp_path):
    save(tmp_path, {"scene": 0.5}, "a_eval_results.json")
    save(tmp_path, {"scene": 0.5}, "b_eval_results.json")
    assert read_scores(tmp_path).measured == {"scene": 0.5}
    save(tmp_path, {"scene": 0.6}, "c_eval_results.json")
    with pytest.raises(ValueError, match="'scene' is 0.5000 in .*b_eval.* and 0.6000 in .*c_eval.*Give the folder of"):
        read_scores(tmp_path)


def test_a_folder_without_results_and_none_are_refused(tmp_path, caplog):
    with pytest.raises(ValueError, match=r"has no file \*_eval_results.json in it. Run VBench's evaluate.py"):
        read_scores(tmp_path)
    assert main(["vbench-score", str(tmp_path / "gone")]) == 2
    assert "There is no file or folder" in caplog.text


@pytest.fixture
def videos(tmp_path):
    """A folder of eleven videos, whose names sort by number."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(11):
        (folder / f"clip{number}.mp4").write_text(f"video {number}")
    return folder


def made(out):
    """What was written: names and what is in them."""
    return {path.name: path.read_text() for path in (out / "videos").iterdir()}


def test_videos_in_order_are_named_prompt_by_prompt(videos, tmp_path, capsys):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "out"
    prompts.write_text("\ufeffA cat, running.\n\n a façade \r\n", encoding="utf-8")
    (videos / "clip0.mp4").unlink()
    (videos / "notes.txt").write_text("not a video")
    assert main(["vbench-names", str(videos), str(prompts), str(out)]) == 0
    expected = {f"A cat, running.-{i}.mp4": f"video {i + 1}" for i in range(5)}
    expected |= {f"a façade-{i}.mp4": f"video {i + 6}" for i in range(5)}
    assert made(out) == expected
    assert json.loads((out / "prompts.json").read_text())["a façade-4.mp4"] == "a façade"
    assert capsys.readouterr().out.startswith("videos: 10, prompts: 2, in ")


def test_a_prompt_that_comes_twice_goes_on_counting(videos, tmp_path):
    (tmp_path / "prompts.json").write_text(json.dumps({"clip3.mp4": "a", "clip4.mp4": "b", "clip10.mp4": "a "}))
    found = named(rows_of(videos, tmp_path / "prompts.json"))
    assert [(one.video.name, one.name) for one in found] == [
        ("clip3.mp4", "a-0.mp4"),
        ("clip4.mp4", "b-0.mp4"),
        ("clip10.mp4", "a-1.mp4"),
    ]
    assert [*notes(found)] == ["fewer than the 5 videos that VBench asks for, 2 prompts: 'a', 'b'"]


ODD = ["a/b", "a\\b", "../../up", 'who? "me": <*|>', "two\nlines", "\x00", "é" * 200, "x" * 251, "\ud800", "CON/"]


@pytest.mark.parametrize("prompt", ODD)
def test_a_prompt_that_is_no_files_name_gets_one_of_its_own(prompt, videos, tmp_path):
    video = videos / "clip0.mp4"
    write(found := named([(video, prompt), (video, prompt)]), tmp_path / "out")
    first, second = sorted(made(tmp_path / "out"))
    assert first.endswith("-0.mp4") and second.endswith("-1.mp4") and len(second.encode()) <= 255
    assert json.loads((tmp_path / "out" / "prompts.json").read_text()) == {first: prompt, second: prompt}
    renamed, how, *_ = notes(found)
    assert renamed.startswith("not a file name, so changed, 1 prompt: ") and "--prompt_file prompts.json" in how


@pytest.mark.parametrize("prompt", ["x" * 249, "é" * 124, "..", "-f", "ends in -5", "100% 猫 🐈"])
def test_a_prompt_that_is_a_files_name_is_kept_as_vbench_asks_for_it(prompt):
    assert name_of(prompt, 3) == f"{prompt}-3.mp4"


def test_prompts_that_would_become_one_name_do_not(videos, tmp_path):
    rows = [(videos / f"clip{i}.mp4", prompt) for i, prompt in enumerate(["a/b", "a:b", "a_b", "y" * 300, "y" * 301])]
    write(named(rows), tmp_path / "out")
    assert sorted(made(tmp_path / "out").values()) == [f"video {i}" for i in range(5)]


def test_prompts_that_differ_in_capitals_are_told_and_never_written_over(videos, tmp_path):
    found = named([(videos / "clip0.mp4", "A cat"), (videos / "clip1.mp4", "a cat")])
    assert [*notes(found)][-1] == "apart by capitals only, which not every disk keeps, 2 prompts: 'A cat', 'a cat'"
    with pytest.raises(ValueError, match="disk keeps no capitals apart"):
        write([found[0], found[1]._replace(name=found[0].name)], tmp_path / "out")
    assert made(tmp_path / "out") == {"A cat-0.mp4": "video 0"}


def test_a_disk_without_links_gets_copies(videos, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(vbench_names.os, "link", refuse)
    write(named([(videos / "clip7.mp4", "z" * 249)]), tmp_path / "out")
    assert made(tmp_path / "out") == {"z" * 249 + "-0.mp4": "video 7"}


def test_a_number_of_videos_that_does_not_fit_the_prompts_is_refused(videos, tmp_path, capsys, caplog):
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    arguments = ["vbench-names", str(videos), str(tmp_path / "prompts.txt"), str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "11 videos, but 2 prompts of 5 videos each make 10" in caplog.text
    with pytest.raises(SystemExit):
        main([*arguments, "--samples", "0"])
    assert "is not a number of 1 or more" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


BAD = {
    "a missing video": ({"clip0.mp4": "a", "gone.mp4": "b"}, "1 of 2 videos are not there: .*gone.mp4"),
    "a name too long": ({"x" * 5000: "a"}, "1 of 1 videos are not there"),
    "a folder": ({"": "a"}, "1 of 1 videos are not there"),
    "another kind": ({"notes.txt": "a"}, "notes.txt'?: VBench's names end in .mp4. Convert"),
    "no prompt": ({"clip0.mp4": " "}, "clip0.mp4' has an empty prompt"),
    "a number": ({"clip0.mp4": 5}, "has 5 for 'clip0.mp4', where its prompt is needed"),
    "nothing": ({}, "There is no video to name"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_list_that_does_not_fit_the_videos_is_refused(case, videos, tmp_path):
    listed, said = BAD[case]
    (videos / "notes.txt").write_text("not a video")
    (tmp_path / "prompts.json").write_text(json.dumps(listed))
    with pytest.raises(ValueError, match=said):
        named(rows_of(videos, tmp_path / "prompts.json"))


def test_a_folder_that_has_videos_already_is_not_mixed_with_others(videos, tmp_path):
    found = named([(videos / "clip0.mp4", "a")])
    write(found, tmp_path / "out")
    with pytest.raises(ValueError, match="is not empty, and VBench takes all that is in it"):
        write(found, tmp_path / "out")


def test_folders_that_are_not_there_or_cannot_be_written_are_told(videos, tmp_path):
    (tmp_path / "prompts.txt").write_text("a\n")
    with pytest.raises(ValueError, match="There is no folder"):
        rows_of(tmp_path / "gone", tmp_path / "prompts.txt")
    with pytest.raises(ValueError, match="cannot be read"):
        rows_of(videos, tmp_path / "gone.txt")
    with pytest.raises(ValueError, match="could not be written"):
        write(named([(videos / "clip0.mp4", "a")]), tmp_path / "prompts.txt")
