"""How much memory a training step takes, beyond the model and its optimiser."""

import gc
import os
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def step_bytes(step: Callable[[], None], device: torch.device) -> int:
    """The most memory that torch holds at once during `step`, beyond what it held before.

    On a CPU torch's own record of what it allocates is read, so that neither other
    programs nor the system's bookkeeping count.

    Example:
        >>> step_bytes(lambda: None, torch.device("cpu"))
        0
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it would tell of itself on stderr
    gc.collect()  # tensors from before, freed meanwhile, make torch complain on stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    held = most = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most
