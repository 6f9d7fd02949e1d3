"""Seconds of a network call, read without waiting for the GPU while the run goes on."""

import time
from collections.abc import Callable

import torch


def stopwatch(device: torch.device) -> Callable[[], Callable[[], float]]:
    """Started now; calling it stops it and gives a function that reads the seconds. Only reading waits for the GPU."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()

        def stop() -> Callable[[], float]:
            end.record()
            return lambda: end.synchronize() or begin.elapsed_time(end) / 1000.0

        return stop
    started = time.perf_counter()

    def stop_clock() -> Callable[[], float]:
        seconds = time.perf_counter() - started
        return lambda: seconds

    return stop_clock
