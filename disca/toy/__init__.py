"""A world small enough to train on two cores: moving shapes, and a HunyuanVideo that draws them."""
