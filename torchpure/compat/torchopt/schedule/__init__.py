"""Schedules of the learning rate."""

from .exponential_decay import exponential_decay
from .polynomial import linear_schedule, polynomial_schedule

__all__ = ["exponential_decay", "linear_schedule", "polynomial_schedule"]
