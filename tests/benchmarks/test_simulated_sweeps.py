"""A simulated sweep keeps the laws of closed forms, and does what the real executor does."""

import threading
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from itertools import product

import pytest
import trainings

from benchmarks.simulator import Scheduler, Worker, equal_tasks_seconds, simulate_sweep
from torchpure.train.executors import LocalWorkers, Task, run_tasks

SCHEDULERS = [Scheduler(), Scheduler(0.01, 0.02), Scheduler(0.1, 0.1), Scheduler(1.0, 1.0), Scheduler(0.0, 0.3)]


def seconds(tasks, workers, scheduler):
    return simulate_sweep([1.0] * tasks, [Worker()] * workers, scheduler).seconds


@pytest.mark.parametrize("tasks, workers", [*product((1, 7, 20, 100), (1, 2, 5, 20, 200))])
def test_law_equal_tasks_take_what_the_closed_form_says(tasks, workers):
    for scheduler in SCHEDULERS:
        got, least = seconds(tasks, workers, scheduler), equal_tasks_seconds(tasks, 1.0, workers, scheduler)
        rounds, both = -(-tasks // workers), scheduler.hand_out + scheduler.take_in
        assert least - 1e-9 <= got <= rounds + tasks * both + 1e-9
        if workers == 1 or both == 0:
            assert got == pytest.approx(least)


def test_more_workers_never_take_longer_and_a_scheduler_is_a_limit():
    times = [seconds(100, workers, SCHEDULERS[1]) for workers in (1, 2, 4, 8, 16, 32, 64, 128)]
    assert times == sorted(times, reverse=True)
    assert times[-1] >= 100 * 0.03


@pytest.mark.parametrize("breaks_pool", [False, True])
@pytest.mark.parametrize("lost", [[0.5], [2.5, 2.5], [0.1, 1.1, 2.1], [9.0]])
def test_law_each_task_ends_once_and_begins_once_more_than_it_was_lost(lost, breaks_pool):
    workers = [Worker(lost_at=time) for time in lost] + [Worker()] * (4 - len(lost))
    ran = simulate_sweep([1.0] * 10, workers, Scheduler(breaks_pool=breaks_pool))
    assert sorted(ran.ended) == [*range(10)] and min(ran.begun) == 1
    lives = 4 if breaks_pool else 1
    assert 10 <= sum(ran.begun) <= 10 + lives * len(lost)
    assert ran.seconds >= 3.0


def test_a_slow_worker_and_a_late_one():
    ran = simulate_sweep([1.0] * 4, [Worker(), Worker(slowness=3.0)], Scheduler())
    assert ran.ended == [0, 2, 1, 3] and ran.seconds == 3.0 and ran.busy == 1.0
    assert simulate_sweep([1.0] * 2, [Worker(), Worker(start=5.0)], Scheduler()).seconds == 2.0


def test_workers_that_nobody_replaces():
    gone = Scheduler(renew=None)
    assert simulate_sweep([1.0] * 3, [Worker(lost_at=0.5), Worker()], gone).ended == [1, 2, 0]
    with pytest.raises(ValueError, match="simulate_sweep: all workers are lost with 2 tasks to run"):
        simulate_sweep([1.0] * 3, [Worker(lost_at=1.5)], gone)


def test_a_renewed_pool_takes_time():
    ran = simulate_sweep([1.0] * 4, [Worker(lost_at=0.5), Worker()], Scheduler(breaks_pool=True, renew=2.0))
    assert ran.seconds == 0.5 + 2.0 + 2.0 and ran.begun == [2, 2, 1, 1]


# --- against the real executor ---


class Clock:
    """Time on paper for the tasks of a pool: it goes on when all workers wait for it, and every result has been seen."""

    def __init__(self, workers, tasks):
        self.now, self.workers, self.to_begin, self.to_see = 0.0, workers, tasks, 0
        self.ends, self.changed = [], threading.Condition()

    def sleep(self, number, length):
        """Wait on paper, and return the number of the task."""
        with self.changed:
            end = (self.now + length, number)
            self.ends.append(end)
            self.to_begin -= 1
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.is_next(end), 120)
            self.now, self.to_see = end[0], self.to_see + 1
            self.ends.remove(end)
        return number

    def is_next(self, end):
        all_wait = len(self.ends) == min(self.workers, len(self.ends) + self.to_begin)
        return all_wait and not self.to_see and end == min(self.ends)

    def see(self, number):
        with self.changed:
            self.to_see -= 1
            self.changed.notify_all()
        return number


def run(executor, fn, args):
    tasks = [Task(f"task {number}", (number, *more), {}) for number, more in enumerate(args)]
    return [number for number, _ in run_tasks("test", executor, fn, tasks)]


@pytest.mark.parametrize("lengths", [[5, 1, 1, 1, 4], [1, 4, 1, 1, 6, 1]])
def test_results_come_in_the_order_of_the_simulation(lengths):
    ran = simulate_sweep(lengths, [Worker()] * 2, Scheduler())
    clock = Clock(2, len(lengths))
    tasks = [Task(f"task {number}", (number, length), {}) for number, length in enumerate(lengths)]
    with ThreadPoolExecutor(2) as executor:
        assert [clock.see(number) for number, _ in run_tasks("test", executor, clock.sleep, tasks)] == ran.ended


class Breaking:
    """A pool of threads that breaks as one of processes does: all its futures fail, and its running tasks are lost."""

    def __init__(self, workers):
        self.pool, self.futures, self.broken = ThreadPoolExecutor(workers), [], threading.Event()
        self.lock = threading.Lock()  # a future that comes while the pool breaks fails too

    def submit(self, fn, *args):
        outer = Future()
        with self.lock:
            self.futures.append(outer)
            if self.broken.is_set():
                outer.set_exception(BrokenExecutor("a worker ended"))
        self.pool.submit(self.call, outer, fn, args)
        return outer

    def call(self, outer, fn, args):
        if self.broken.is_set():
            return
        result = fn(*args)
        if not self.broken.is_set():
            outer.set_result(result)

    def lose(self):
        with self.lock:
            self.broken.set()
            lost = [future for future in self.futures if not future.done()]
        for future in lost:
            future.set_exception(BrokenExecutor("a worker ended"))

    def shutdown(self, wait=True, cancel_futures=False):
        self.pool.shutdown(wait=wait, cancel_futures=True)


def test_lost_tasks_run_again_as_in_the_simulation():
    """Task 2 ends its worker while task 1 runs on the other one, after task 0."""
    pools, begun, runs = [], [0] * 6, threading.Event()

    def make():
        pools.append(Breaking(2))
        return pools[-1]

    def task(number):
        begun[number] += 1
        if number == 1 and begun[1] == 1:
            runs.set()
            pools[0].broken.wait(20)
        if number == 2 and begun[2] == 1:
            runs.wait(20)
            pools[0].lose()
        return number

    ended = run(make, task, [()] * 6)
    ran = simulate_sweep([1.0, 9.0, 1.0, 1.0, 1.0, 1.0], [Worker(lost_at=1.5), Worker()], Scheduler(breaks_pool=True))
    assert begun == ran.begun == [1, 2, 2, 1, 1, 1]
    assert sorted(ended) == sorted(ran.ended) and ended[0] == ran.ended[0] == 0


@pytest.mark.dist
@pytest.mark.proof
def test_a_killed_process_costs_what_the_simulation_says(tmp_path):
    tasks = [Task(f"task {number}", (number, tmp_path), {}) for number in range(6)]
    with LocalWorkers(2) as executor:
        ended = [number for number, _ in run_tasks("test", executor, trainings.fatal_beside, tasks)]
    begun = [len([*tmp_path.glob(f"{number}-*")]) for number in range(6)]
    ran = simulate_sweep([1.0, 9.0, 1.0, 1.0, 1.0, 1.0], [Worker(lost_at=1.5), Worker()], Scheduler(breaks_pool=True))
    assert begun == ran.begun and sorted(ended) == sorted(ran.ended)
