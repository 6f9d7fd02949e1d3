"""A world small enough to train on two cores: moving shapes, and a HunyuanVideo that draws them."""

from pathlib import Path

WEIGHTS = Path(__file__).with_name("weights")  # trained by python -m disca.training.toy_chain
