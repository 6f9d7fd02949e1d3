"""The folder for Predictors is there when ComfyUI has started, and its absence stops nothing."""

import asyncio
import os
import sys

import folder_paths
import pytest

from disca.host.folders import make_predictor_folder


def test_the_folder_for_predictors_is_made_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    make_predictor_folder()
    (tmp_path / "models" / "disca" / "mine.safetensors").touch()
    make_predictor_folder()
    assert os.listdir(tmp_path / "models" / "disca") == ["mine.safetensors"]


@pytest.mark.parametrize("blocked", ["models", "models/disca"])
def test_a_place_that_cannot_be_written_stops_nothing_and_is_named_in_the_log(tmp_path, monkeypatch, caplog, blocked):
    (tmp_path / blocked).parent.mkdir(exist_ok=True)
    (tmp_path / blocked).touch()  # a file in its place: refused for the administrator too
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    with caplog.at_level("INFO"):
        make_predictor_folder()
    assert "models/disca could not be made" in caplog.text


def test_loading_the_pack_makes_the_folder(comfy_nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "disca", ([], set()))
    (pack,) = (module for module in [*sys.modules.values()] if "DiscaExtension" in getattr(module, "__dict__", ()))
    asyncio.run(pack.DiscaExtension().on_load())
    assert (tmp_path / "disca").is_dir()
