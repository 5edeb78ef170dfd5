"""torch's random state of one training, kept apart from the caller's."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

_GPU = "cuda.0"  # the name of its state, whichever it is: a training may go on with another


class Generators:
    """Random generators that a training alone draws from.

    Between two uses the caller's generators are as they were, so whatever a caller draws
    while watching a training changes nothing in it.

    Args:
        state: What `state` was when it stopped; a device it does not name starts from `seed`.
        device: Where the training runs.
        seed: Of what is new.

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
        with torch.random.fork_rng(self._cuda):
            torch.manual_seed(seed)
            self.state = {**self._drawn_from(), **state}  # a run is begun on the CPU, whatever device it goes on with

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make torch draw from these generators inside the block."""
        with torch.random.fork_rng(self._cuda):
            torch.set_rng_state(self.state["cpu"])
            for device in self._cuda:
                torch.cuda.set_rng_state(self.state[_GPU], device)
            try:
                yield
            finally:
                self.state = self._drawn_from()

    def _drawn_from(self) -> dict[str, Tensor]:
        """The state of what torch draws from at the moment."""
        state = {"cpu": torch.get_rng_state()}
        for device in self._cuda:
            state[_GPU] = torch.cuda.get_rng_state(device)
        return state
