"""The processes that train one model together, as each of them sees the others.

`Alone` is the only one; `Group` is one of those that torchrun started. The loop asks the
same of both, so that it reads as if there were one process. What they exchange, and what
it means, is not told here.
"""

import contextlib
import importlib
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch
from torch import Tensor, distributed

from tokenspace.errors import ProcessError, SettingError, TokenspaceError

_PATIENCE = timedelta(hours=2)  # with what the first process does alone, such as writing a large checkpoint
_LOOK_EVERY = 0.1  # seconds
_FIRST_MAY_SPEAK = 0.5  # seconds in which the first process tells what all of them find


class Alone:
    """The one process of a training that has no others.

    Attributes:
        rank: Of this process, from 0; the first one writes and is heard.
        world_size: Processes in all.

    Example:
        >>> alone = Alone()
        >>> alone.is_first, alone.any(False), alone.total(2.5), alone.gather(torch.tensor([1, 2]))
        (True, False, 2.5, tensor([[1, 2]]))
    """

    rank = 0
    world_size = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and is heard."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device called `name` that is this process's; see `choose_device`."""
        return choose_device(name)

    def sum(self, tensor: Tensor) -> None:
        """Make `tensor` the sum of those of all processes, in place."""

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, which have one shape, by rank: shape S gives (world_size,) + S."""
        return tensor.unsqueeze(0)

    def total(self, number: float) -> float:
        """The sum of the numbers of all processes."""
        total = torch.tensor(number, dtype=torch.float64)
        self.sum(total)
        return total.item()

    def any(self, wish: bool) -> bool:
        """Whether any process wishes it."""
        return self.total(wish) > 0

    def from_first(self, work: Callable[[], str]) -> str:
        """What `work` returns in the first process; the others wait for it. Once a training."""
        return work()


class Group(Alone):
    """One of several processes, by the environment that torchrun sets.

    Raises:
        ProcessError: where another process has ended; from every method that exchanges something.
    """

    def __init__(self) -> None:
        self._store, self.rank, self.world_size = next(distributed.rendezvous("env://", timeout=_PATIENCE))
        # Its default arguments are the group of the time when it is imported, which the first step of an optimiser
        # does. From then on nothing ended the group, and its threads now and then aborted Python's own end.
        importlib.import_module("torch.distributed.nn.functional")
        # no backend is named: gloo serves what lies on the CPU, NCCL what lies on a GPU
        distributed.init_process_group(
            store=distributed.PrefixStore("group", self._store),
            rank=self.rank,
            world_size=self.world_size,
            timeout=_PATIENCE,
        )

    def device(self, name: str) -> torch.device:
        """The CPU, or the GPU that has this process's number on its machine.

        Raises:
            SettingError: another kind of device is named, a certain GPU, or there are fewer of them.
        """
        if name not in ("auto", "cpu", "cuda"):
            rule = "be 'auto', 'cpu' or 'cuda' where several processes train"
            raise SettingError("device", rule, name, "Each process takes the GPU of its own number")
        if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
            return choose_device("cpu")
        device = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', self.rank)}")
        torch.cuda.set_device(device)
        return device

    def sum(self, tensor: Tensor) -> None:
        """Every process gets the same bits."""
        with _others_go_on():
            distributed.all_reduce(tensor)

    def gather(self, tensor: Tensor) -> Tensor:
        """Every process gets all of them."""
        gathered = tensor.new_empty(self.world_size, *tensor.shape)
        with _others_go_on():
            distributed.all_gather(list(gathered.unbind()), tensor.contiguous())
        return gathered

    def from_first(self, work: Callable[[], str]) -> str:
        """Where the first process fails, so do the others."""
        if self.is_first:
            answer = work()
            self._store.set("answer", answer)
            return answer
        with _others_go_on():  # asked again and again: it may take hours, and signals are heard in between
            while not self._store.check(["answer"]):
                if self._store.check(["failed"]):
                    raise RuntimeError("the first process failed")
                time.sleep(_LOOK_EVERY)
            return self._store.get("answer").decode()

    def is_first_to_fail(self) -> bool:
        """Whether no other process has failed before this one; to be asked once, by one that fails."""
        if not self.is_first:
            time.sleep(_FIRST_MAY_SPEAK)
        return self._store.add("failed", 1) == 1


@contextlib.contextmanager
def processes() -> Iterator[Alone]:
    """The processes of this training: those that torchrun started, else this one.

    An error in one of them ends all, and only the first that fails tells it: in the others
    the block ends with ``SystemExit``.

    Example:
        >>> with processes() as found:
        ...     found.world_size
        1
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Alone()
        return
    group = Group()
    try:
        yield group
    except BaseException as error:
        if not group.is_first_to_fail():
            raise SystemExit(2) from None
        if isinstance(error, TokenspaceError) and not group.is_first:
            name, *rest = error.args
            raise ProcessError(f"{name} in process {group.rank}", *rest) from error
        raise
    finally:
        distributed.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA, Apple's MPS or the CPU, the first that is there.

    Raises:
        SettingError: torch has no such device here.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # the device "meta" holds no numbers
    except (RuntimeError, AssertionError, ImportError) as error:  # what torch raises without the device
        raise SettingError("device", "be one that torch has here", name, "Use 'cpu' or 'auto'") from error
    return device


def share_of(batch_size: int, world_size: int) -> int:
    """Windows of a batch that each process takes.

    Raises:
        SettingError: they cannot all take as many.

    Example:
        >>> share_of(8, world_size=2)
        4
    """
    if batch_size % world_size:
        nearest = -(-batch_size // world_size) * world_size
        rule, next_step = f"be divisible by the {world_size} processes", f"Use batch_size = {nearest}"
        raise SettingError("batch_size", rule, batch_size, f"{next_step}, or another number of processes")
    return batch_size // world_size


@contextlib.contextmanager
def _others_go_on() -> Iterator[None]:
    """Turn torch's errors of an exchange into one that says what they mean."""
    try:
        yield
    except RuntimeError as error:  # gloo and NCCL raise no closer kind
        why = str(error).splitlines()[0]
        next_step = "Look for what ended it, then go on with --resume"
        raise ProcessError("the training's processes", "all go on", f"one that ended ({why})", next_step) from error
