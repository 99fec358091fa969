"""What all members of a group share, and how another process makes it."""

import copy
import hashlib
import pickle
import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchpure import model
from torchpure._types import Params
from torchpure.optim import Optimizer
from torchpure.runs.fits import FitConfig, make_optimizer, standard_loss
from torchpure.train.executors import unpack

from ._train import Programs, State, Task

_MAX_PROGRAMS = 8  # that a process keeps, of the newest groups for which it works


class Recipe(NamedTuple):
    """How another process makes the task of a group."""

    name: str  # the hash of the rest
    core: bytes  # the network without its values
    config: FitConfig
    loss: str
    patience: int | None
    decays: bool


def make_task(core: nn.Module, config: FitConfig, name: str, patience: int | None, *, decays: bool) -> Task:
    """Return what all members of a group share."""
    net, of_output = model.functional(core), standard_loss(name)

    def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return of_output(net(params, x), y)

    def optimizer(rate: Tensor, decay: Tensor) -> Optimizer:
        return make_optimizer(config, rate, decay if decays else None)

    return Task(loss, optimizer, config.steps, patience)


def make_recipe(core: nn.Module, config: FitConfig, name: str, patience: int | None, *, decays: bool) -> Recipe:
    """Return the recipe of `make_task` with these arguments."""
    blank = copy.deepcopy(core)
    with torch.no_grad():
        for value in blank.parameters():
            value.zero_()
    content = pickle.dumps(blank)
    asked = f"{config.model_dump_json()} {name} {patience} {decays}".encode()
    return Recipe(hashlib.sha256(content + asked).hexdigest(), content, config, name, patience, decays)


_PROGRAMS: dict[str, Programs] = {}  # of this process, by Recipe.name: each is compiled once
_LOCK = threading.Lock()


def run_window(recipe: Recipe, kind: dict[str, bool], arguments: Any) -> tuple[State, Tensor]:
    """Run the steps of a window in another process; `kind` says which program, `arguments` are packed."""
    return _programs(recipe).get(**kind)(*unpack(arguments))


def _programs(recipe: Recipe) -> Programs:
    with _LOCK:
        found = _PROGRAMS.pop(recipe.name, None)
        if found is None:
            core = pickle.loads(recipe.core)  # noqa: S301 it came from the process that sent this task
            task = make_task(core, recipe.config, recipe.loss, recipe.patience, decays=recipe.decays)
            found = Programs(task, recipe)
        _PROGRAMS[recipe.name] = found  # the newest is the last
        while len(_PROGRAMS) > _MAX_PROGRAMS:
            del _PROGRAMS[next(iter(_PROGRAMS))]
    return found
