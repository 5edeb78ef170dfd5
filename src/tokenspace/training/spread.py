"""State that is spread over the processes, and its whole, which a checkpoint holds.

A checkpoint does not tell how many processes made it: memory lies in it in the order of
the batch's rows, counts are of all processes. Only random generators are each process's
own; one that finds none of its own begins a new one. Axis letters: B rows, M memory length, D d_model.
"""

import hashlib

import torch
from torch import Tensor

from tokenspace.ledger import Ledger
from tokenspace.training.generators import Generators
from tokenspace.training.processes import Alone

_OF = "process"
_SUMMED, _LATEST = ("input_count", "target_count"), ("last_input", "last_target")


def whole_memory(own: dict[str, Tensor], processes: Alone) -> dict[str, Tensor]:
    """The memory of the whole batch by layer, (B, M, D), from that of each process's rows.

    Row r of the batch is of process r modulo their number, as `WindowLoader` deals them out.
    """
    return {layer: processes.gather(kept).transpose(0, 1).flatten(0, 1) for layer, kept in own.items()}


def own_memory(whole: dict[str, Tensor], processes: Alone) -> dict[str, Tensor]:
    """The rows of `whole_memory` that are this process's."""
    return {layer: kept[processes.rank :: processes.world_size].contiguous() for layer, kept in whole.items()}


def collect_counts(ledger: Ledger, processes: Alone) -> None:
    """Move the counts of all processes to the first one: its ledger is then that of the training."""
    if processes.world_size == 1:
        return
    state = ledger.state_dict()
    state |= {name: processes.gather(state[name]).sum(0) for name in _SUMMED}
    state |= {name: processes.gather(state[name]).amax(0) for name in _LATEST}
    ledger.load_state_dict(own_counts(state, processes))


def own_counts(state: dict[str, Tensor], processes: Alone) -> dict[str, Tensor]:
    """A ledger's state as this process goes on from it: what was counted stays with the first one."""
    if processes.is_first:
        return state
    return state | {name: torch.zeros_like(state[name]) for name in _SUMMED if name in state}


def all_generators(generators: Generators, processes: Alone) -> dict[str, Tensor]:
    """The random state of every process, by rank and device."""
    states = {device: processes.gather(state) for device, state in generators.state.items()}
    return {_of(rank) + d: state[rank] for d, state in states.items() for rank in range(processes.world_size)}


def own_generators(
    states: dict[str, Tensor], processes: Alone, device: torch.device, seed: int, step: int
) -> Generators:
    """This process's random generators: those of `all_generators`, or new ones.

    Args:
        states: Of the checkpoint.
        processes: Which may be more than made it.
        device: Where the training runs.
        seed: Of the training. The first process draws from it, another from one that follows from it.
        step: Of the checkpoint; what begins later begins differently.
    """
    if not processes.is_first:
        seed = int.from_bytes(hashlib.sha256(f"{seed} {processes.rank} {step}".encode()).digest()[:8]) >> 1
    mine = _of(processes.rank)
    own = {name.removeprefix(mine): state for name, state in states.items() if name.startswith(mine)}
    return Generators({name: state for name, state in own.items() if not name.startswith(_OF)}, device, seed)


def _of(rank: int) -> str:
    return f"{_OF}{rank}." if rank else ""  # the first one's stand as if it were alone
