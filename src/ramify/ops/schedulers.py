"""Learning rate schedulers of PyTorch whose optimizer gains parameter groups.

Most of them keep lists with an entry for each group, and fail or ignore new groups. Here each list gets a copy of the
entry of the group that a new one is modeled on.
"""

import gc
from collections.abc import Iterable, Sequence

import torch
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from ramify.errors import InputError

GROUPED = ("base_lrs", "_last_lr", "lr_lambdas", "min_lrs", "max_lrs", "base_momentums", "max_momentums")
"""Lists of PyTorch's schedulers that have an entry for each parameter group."""

OTHER = frozenset({"_schedulers", "_milestones", "total_iters", "milestones"})
"""Lists that have none."""


def schedulers_of(optimizer: torch.optim.Optimizer, known: Iterable[LRScheduler] = ()) -> list[LRScheduler]:
    """The schedulers of ``optimizer``: those in ``known``, and any other object that the garbage collector lists.

    An optimizer does not know its schedulers, but PyTorch marks one that has some; only then is the list searched.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
        >>> schedulers_of(optimizer) == [scheduler]
        True
    """
    schedulers: dict[int, LRScheduler] = {}
    todo = list(known)
    if hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        # isinstance would call __class__ of proxies.
        todo += [candidate for candidate in gc.get_objects() if issubclass(type(candidate), LRScheduler)]
    while todo:
        scheduler = todo.pop(0)
        if id(scheduler) not in schedulers and getattr(scheduler, "optimizer", None) is optimizer:
            schedulers[id(scheduler)] = scheduler
        todo += [inner for inner in getattr(scheduler, "_schedulers", ()) if id(inner) not in schedulers]
    return list(schedulers.values())


def check_schedulers(optimizer: torch.optim.Optimizer, schedulers: Iterable[LRScheduler]) -> None:
    """Check that :func:`extend_schedulers` can extend all of ``schedulers``.

    Raises:
        InputError: one belongs to another optimizer, or may keep an unknown list with an entry for each group.
    """
    groups = len(optimizer.param_groups)
    for scheduler in schedulers:
        name = type(scheduler).__name__
        if getattr(scheduler, "optimizer", None) is not optimizer:
            raise InputError(f"schedulers: got a {name} of another optimizer; accepted: those of the one that is given")
        if type(scheduler).__module__ == lr_scheduler.__name__:
            continue
        for key, value in vars(scheduler).items():
            if isinstance(value, list) and len(value) == groups and key not in (*GROUPED, *OTHER):
                raise InputError(
                    f"schedulers: got {name}, whose list {key} may have an entry for each of the {groups} groups; "
                    "accepted: schedulers of torch.optim; or delete this one first, and make it again"
                )


def extend_schedulers(schedulers: Iterable[LRScheduler], groups: int, like: Sequence[int]) -> None:
    """Give the lists of ``schedulers`` entries for groups that were added behind the first ``groups``.

    Args:
        schedulers: of one optimizer.
        groups: how many there were.
        like: for each new group, the index of the group whose entries it gets.
    """
    for scheduler in schedulers:
        for key in GROUPED:
            value = getattr(scheduler, key, None)
            if isinstance(value, list) and len(value) == groups:
                value.extend([value[index] for index in like])
