"""The model folder for Predictors."""

import os

import folder_paths

PREDICTORS = "disca"


def register_predictor_folder() -> None:
    """Gives `models/disca` to ComfyUI, beside the folders that extra_model_paths.yaml already named for it."""
    folder_paths.add_model_folder_path(PREDICTORS, os.path.join(folder_paths.models_dir, PREDICTORS))
    paths, extensions = folder_paths.folder_names_and_paths[PREDICTORS]
    folder_paths.folder_names_and_paths[PREDICTORS] = (paths, set(extensions) | {".safetensors"})
