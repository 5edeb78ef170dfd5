"""What runs tasks: processes of this machine, or a Ray cluster.

An engine is given numbers of tasks and has them run, each at least once; how often, where and in
which order does not matter. It knows nothing of what a task does.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from tokenspace import errors
from tokenspace.corpus.task import Advance, Job
from tokenspace.errors import CorpusError, SettingError, TokenspaceError, check_at_least

_BYTES_A_WORKER = 64 << 20  # below that, to start a process takes longer than to do its work
_LEAST_BYTES = 8 << 20  # of which no more than one task is made
_AGAIN = "Run the same command again: it goes on; with fewer workers if memory is short"


class Engine(ABC):
    """Runs tasks. It is a context, after which nothing that it started runs any more.

    Args:
        workers: How many tasks run at a time; None for one a core, as far as there is work.

    Raises:
        SettingError: `workers` is below 1.
    """

    def __init__(self, workers: int | None) -> None:
        check_at_least(1, workers=1 if workers is None else workers)
        self._workers = workers

    def __enter__(self) -> "Engine":
        return self

    @abstractmethod
    def __exit__(self, *error: object) -> None: ...

    @abstractmethod
    def prepare(self, num_bytes: int) -> None:
        """Begin with what takes a while, when only the size of the text is known."""

    @abstractmethod
    def run(self, job: Job, pending: Sequence[int], advance: Advance) -> None:
        """Run tasks.

        Args:
            job: Whose tasks.
            pending: Their numbers.
            advance: See `Advance`; called by one thread at a time.

        Raises:
            SettingError: the engine cannot run this job.
            TokenspaceError: what the first task that failed raised.
            CorpusError: a process was ended from outside.
        """


def engine_named(name: str, workers: int | None) -> Engine:
    """The engine of a name: "local", or "ray" for the cluster that Ray's settings name (`RAY_ADDRESS`).

    Raises:
        SettingError: there is no such engine, or `workers` is below 1.
    """
    engines = {"local": LocalEngine, "ray": RayEngine}
    if name not in engines:
        raise SettingError("engine", f"be one of {', '.join(engines)}", name, "Name one of these")
    return engines[name](workers)


class LocalEngine(Engine):
    """Tasks in this process and in others beside it."""

    def __init__(self, workers: int | None) -> None:
        super().__init__(workers)
        self._processes: list[_Worker] = []

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.end()
        self._processes = []

    def prepare(self, num_bytes: int) -> None:
        """Start the other processes: half a second passes before they can do anything."""
        each = _LEAST_BYTES if self._workers else _BYTES_A_WORKER
        self._start(min(self._workers or _num_cores(), max(1, num_bytes // each)))

    def _start(self, wanted: int) -> None:
        threads = max(1, _num_cores() // wanted)
        self._processes += [_Worker(threads) for _ in range(wanted - 1 - len(self._processes))]

    def run(self, job: Job, pending: Sequence[int], advance: Advance) -> None:
        """See `Engine`."""
        pool = _Pool(job, pending, advance)
        if _can_share(job):
            self.prepare(sum(map(job.plan.task_bytes, pending)))
            self._start(min(self._workers or 1, len(pending)))
        helpers = [
            threading.Thread(target=pool.serve, args=(process.run,), daemon=True)
            for process in self._processes[: len(pending) - 1 if _can_share(job) else 0]
        ]
        try:
            for helper in helpers:
                helper.start()
            pool.work(lambda place, index, advance: job.run(index, advance))
            for helper in helpers:
                while helper.is_alive():
                    helper.join(0.1)  # a wait without end cannot be interrupted on Windows
        finally:
            pool.waiting.clear()
            if any(helper.is_alive() for helper in helpers):
                self.__exit__()
        if pool.failures:
            raise pool.failures[0]


class RayEngine(Engine):
    """Tasks on the cluster that Ray's own settings name (`RAY_ADDRESS`), or on a Ray started here.

    Every machine has to see sources and target under the same paths or URLs.
    """

    def __exit__(self, *error: object) -> None:
        """Ray itself stays as it is."""

    def prepare(self, num_bytes: int) -> None:
        """Nothing: a cluster runs already."""

    def run(self, job: Job, pending: Sequence[int], advance: Advance) -> None:
        """See `Engine`; a SettingError too where Ray is not installed, or the target is in this process's memory."""
        try:
            import ray
        except ImportError as error:
            step = "Install it: pip install 'tokenspace[ray]'"
            raise SettingError("engine", "be one that is installed", "ray, which is not", step) from error
        if not _can_share(job):
            step = "Give a path or another URL"
            raise SettingError("out", "be a place that every machine sees", job.store.place, step)
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False if "RAY_ADDRESS" not in os.environ else None)
        num_actors = min(self._workers or int(ray.cluster_resources().get("CPU", 1)), len(pending))
        actor_class = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=3)(_RayWorker)
        actors = [actor_class.remote(job.store.place, str(Path.cwd())) for _ in range(num_actors)]
        waiting = deque(pending)
        running = {actor.run.remote(waiting.popleft()): actor for actor in actors}
        try:
            while running:
                (done,), _ = ray.wait(list(running))
                actor = running.pop(done)
                advance(*ray.get(done))
                if waiting:
                    running[actor.run.remote(waiting.popleft())] = actor
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, TokenspaceError) else error from None
        except ray.exceptions.RayActorError as error:
            raise CorpusError("ray worker", "run until its tasks are done", str(error), _AGAIN) from error
        finally:
            for actor in actors:
                ray.kill(actor)


RunTask = Callable[[str, int, Advance], None]  # of the corpus at a place


class _Pool:
    """Tasks that wait, and whoever runs them."""

    def __init__(self, job: Job, pending: Sequence[int], advance: Advance) -> None:
        self.waiting = deque(pending)
        self._place = job.store.place
        self.failures: list[TokenspaceError] = []
        self._advance = advance
        self._lock = threading.Lock()

    def serve(self, run: RunTask) -> None:
        """`work` in a thread, with errors kept for the main one."""
        try:
            self.work(run)
        except TokenspaceError as error:
            self.failures.append(error)
            self.waiting.clear()

    def work(self, run: RunTask) -> None:
        """Run tasks as long as there are any."""
        while True:
            try:
                index = self.waiting.popleft()
            except IndexError:
                return
            run(self._place, index, self.advance)

    def advance(self, num_bytes: int, num_tokens: int) -> None:
        if self.failures:
            raise self.failures[0]
        with self._lock:
            self._advance(num_bytes, num_tokens)


class _Worker:
    """A process of its own that runs tasks one by one; see `worker`."""

    def __init__(self, threads: int) -> None:
        here = str(Path.cwd())
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or here for path in sys.path),  # it imports what this process would
            "RAYON_NUM_THREADS": str(threads),  # the tokenizer's own
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tokenspace.corpus.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for this process alone
        )

    def run(self, place: str, index: int, advance: Advance) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps([place, index]).encode() + b"\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            message = json.loads(line)
            if "error" in message:
                raise getattr(errors, message["error"])(*message["args"])
            if "done" in message:
                return
            advance(message["bytes"], message["tokens"])
        found = f"ended at task {index} with status {self._process.wait()}"
        raise CorpusError("worker process", "run until its tasks are done", found, _AGAIN)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        with contextlib.suppress(OSError):
            self._process.stdin.close()


class _RayWorker:
    """An actor: the tokenizer is loaded once."""

    def __init__(self, place: str, folder: str) -> None:
        from tokenspace.store import Store

        with contextlib.suppress(OSError):  # relative paths in the plan are those of whoever planned
            os.chdir(folder)
        self._job = Job.open(Store.of(place))

    def run(self, index: int) -> tuple[int, int]:
        counts = [0, 0]

        def count(num_bytes: int, num_tokens: int) -> None:
            counts[0] += num_bytes
            counts[1] += num_tokens

        self._job.run(index, count)
        return counts[0], counts[1]


def _can_share(job: Job) -> bool:
    """Whether another process sees what this one does."""
    return job.store.is_shared and not any(source.path.startswith("memory://") for source in job.plan.sources)


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
