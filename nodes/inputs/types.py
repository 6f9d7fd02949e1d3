"""Socket types of our own, and what the nodes share."""

from comfy_api.v0_0_2 import io

CATEGORY = "DisCa"
TRAINING_CATEGORY = "DisCa/training"
TOY_CATEGORY = "DisCa/toy"
NOTHING_THERE = 'If it shows "undefined", there is none yet: put it there and press R.'

DiscaPredictor = io.Custom("DISCA_PREDICTOR")  # disca.models.loading.LoadedPredictor
DiscaSchedule = io.Custom("DISCA_SCHEDULE")  # disca.schedule.Schedule
