"""The graph's side of training: the worker process, its progress, and its results."""
