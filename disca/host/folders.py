"""The model folder for Predictors."""

import logging
import os

import folder_paths

PREDICTORS = "disca"

logger = logging.getLogger(__name__)


def register_predictor_folder() -> None:
    """Gives `models/disca` to ComfyUI, beside the folders that extra_model_paths.yaml already named for it."""
    folder_paths.add_model_folder_path(PREDICTORS, os.path.join(folder_paths.models_dir, PREDICTORS))
    paths, extensions = folder_paths.folder_names_and_paths[PREDICTORS]
    folder_paths.folder_names_and_paths[PREDICTORS] = (paths, set(extensions) | {".safetensors"})


def make_predictor_folder() -> None:
    """Makes `models/disca`, so that a newcomer finds where Predictors go; without it where nothing may be written."""
    try:
        os.makedirs(os.path.join(folder_paths.models_dir, PREDICTORS), exist_ok=True)
    except OSError as error:  # a read-only disk, or a file of that name: the pack works without the folder
        logger.info("DisCa: models/%s could not be made (%s).", PREDICTORS, error.strerror)
