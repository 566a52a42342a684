"""Bugs planted one at a time, by a part of the world that does its work wrongly: proof that the checkers see."""

from tests.simulation.bugs.catalog import BUGS, Bug

__all__ = ["BUGS", "Bug"]
