"""torch's random state of one training, kept apart from the caller's."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


class Generators:
    """Random generators that a training alone draws from.

    Between two uses the caller's generators are as they were, so whatever a caller draws
    while watching a training changes nothing in it.

    Args:
        state: What `state` was when it stopped; empty to start from `seed`.
        device: Where the training runs.
        seed: Of a new state.

    Example:
        >>> generators = Generators({}, torch.device("cpu"), seed=0)
        >>> with generators.active():
        ...     first = torch.rand(1)
        >>> _ = torch.rand(5)
        >>> with generators.active():
        ...     second = torch.rand(1)
        >>> bool((torch.rand(2, generator=torch.Generator().manual_seed(0)) == torch.cat([first, second])).all())
        True
    """

    def __init__(self, state: dict[str, Tensor], device: torch.device, seed: int) -> None:
        self._cuda = [device.index or 0] if device.type == "cuda" else []
        self.state = state
        if not state:
            with torch.random.fork_rng(self._cuda):
                torch.manual_seed(seed)
                self._keep()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make torch draw from these generators inside the block."""
        with torch.random.fork_rng(self._cuda):
            torch.set_rng_state(self.state["cpu"])
            for device in self._cuda:
                if f"cuda.{device}" in self.state:  # absent when the run began on another kind of device
                    torch.cuda.set_rng_state(self.state[f"cuda.{device}"], device)
            try:
                yield
            finally:
                self._keep()

    def _keep(self) -> None:
        self.state = {"cpu": torch.get_rng_state()}
        self.state |= {f"cuda.{device}": torch.cuda.get_rng_state(device) for device in self._cuda}
