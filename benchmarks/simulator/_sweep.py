"""A sweep on many workers as a simulation of events: who runs what, who is slow, who is lost, and when all is merged.

One process hands tasks out and takes results in, one at a time. Workers take tasks in order. What a lost worker had
runs again at the end of the queue; if the pool ends with its first lost worker, so does what the others had.
"""

import heapq
import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple


class Worker(NamedTuple):
    """One process."""

    slowness: float = 1.0  # seconds that it takes for a second of a task
    start: float = 0.0  # seconds until it takes its first task: imports, the compiler
    lost_at: float = math.inf  # seconds after which it ends


class Scheduler(NamedTuple):
    """What the process that hands out tasks needs."""

    hand_out: float = 0.0  # seconds to send a task
    take_in: float = 0.0  # seconds to receive a result and to merge it
    breaks_pool: bool = False  # a lost worker ends the others, as in concurrent.futures.ProcessPoolExecutor
    renew: float | None = 0.0  # seconds until a new worker stands in for a lost one; None: there is none


class Timeline(NamedTuple):
    """What happened."""

    seconds: float  # until the last result is merged
    ended: list[int]  # tasks, in the order of their results
    begun: list[int]  # how often each task began
    busy: float  # the share of the time in which workers computed


class _State:
    """The queue, the workers, and the scheduler's clock."""

    def __init__(self, tasks: Sequence[float], workers: Sequence[Worker], scheduler: Scheduler) -> None:
        self.tasks, self.workers, self.scheduler = tasks, list(workers), scheduler
        self.queue = deque(range(len(tasks)))
        self.events: list[tuple[float, int, str, int]] = []  # time, number of the event, what, worker
        self.count = 0
        self.has: dict[int, int] = {}  # worker -> task
        self.life = [0] * len(workers)  # an event of an earlier life of a worker is void
        self.idle: deque[int] = deque()
        self.free_at = self.worked = 0.0
        self.begun, self.ended = [0] * len(tasks), list[int]()
        for number, worker in enumerate(workers):
            self.add(worker.start, "ready", number)
            if worker.lost_at < math.inf:
                self.add(worker.lost_at, "lost", number)

    def add(self, time: float, what: str, worker: int) -> None:
        heapq.heappush(self.events, (time, self.count, f"{what} {self.life[worker]}", worker))
        self.count += 1

    def hand_out(self, now: float) -> None:
        while self.queue and self.idle:
            worker, task = self.idle.popleft(), self.queue.popleft()
            self.free_at = max(self.free_at, now) + self.scheduler.hand_out
            self.has[worker] = task
            self.begun[task] += 1
            self.add(self.free_at + self.tasks[task] * self.workers[worker].slowness, "done", worker)

    def done(self, now: float, worker: int) -> None:
        task = self.has.pop(worker)
        self.worked += self.tasks[task] * self.workers[worker].slowness
        self.free_at = max(self.free_at, now) + self.scheduler.take_in
        self.ended.append(task)
        self.idle.append(worker)

    def lose(self, now: float, worker: int) -> None:
        ended = range(len(self.workers)) if self.scheduler.breaks_pool else [worker]
        back = sorted(self.has.pop(one) for one in ended if one in self.has)
        # a broken pool gives back all tasks, in their order; a scheduler that lives adds the one that was lost
        self.queue = deque(sorted([*back, *self.queue]) if self.scheduler.breaks_pool else [*self.queue, *back])
        self.idle = deque(one for one in self.idle if one not in ended)
        for one in ended:
            self.life[one] += 1
            if self.scheduler.renew is not None:
                self.workers[one] = self.workers[one]._replace(lost_at=math.inf)
                self.add(now + self.scheduler.renew, "ready", one)


def simulate_sweep(tasks: Sequence[float], workers: Sequence[Worker], scheduler: Scheduler) -> Timeline:
    """Run tasks of so many seconds each.

    Law: each task ends once, and begins once more than it was lost.
    Law: with equal tasks and workers, and nothing lost, it takes at least `equal_tasks_seconds`.

    Raises:
        ValueError: all workers are lost, and no new one comes.
    """
    state = _State(tasks, workers, scheduler)
    now = 0.0
    while len(state.ended) < len(tasks):
        if not state.events:
            raise ValueError(f"simulate_sweep: all workers are lost with {len(tasks) - len(state.ended)} tasks to run")
        now, _, what, worker = heapq.heappop(state.events)
        kind, life = what.split()
        if int(life) != state.life[worker]:
            continue
        if kind == "ready":
            state.idle.append(worker)
        elif kind == "done":
            state.done(now, worker)
        else:
            state.lose(now, worker)
        state.hand_out(now)
    total = max(now, state.free_at)
    busy = state.worked / (total * len(workers)) if total else 0.0
    return Timeline(total, state.ended, state.begun, busy)


def equal_tasks_seconds(tasks: int, task: float, workers: int, scheduler: Scheduler) -> float:
    """Return the least time of equal tasks on equal workers that are all there at once, and not lost.

    A worker's tasks come one after another, each handed out and taken in: ⌈tasks / workers⌉ (task + h + c). The
    scheduler hands out and takes in all of them: tasks (h + c). The first result cannot come before h + task, and all
    are taken in after it: h + task + tasks · c.

    Law: it is exact if the scheduler takes no time, and for one worker.
    Law: the simulation takes at most ⌈tasks / workers⌉ task + tasks (h + c).
    """
    h, c = scheduler.hand_out, scheduler.take_in
    return max(math.ceil(tasks / workers) * (task + h + c), tasks * (h + c), h + task + tasks * c)
