"""One checker for each promise. A checker sees what happens, and looks at the world once more when all is at rest."""

from tests.simulation.checkers.archive_whole import ArchiveWhole
from tests.simulation.checkers.base import Checker
from tests.simulation.checkers.exact import Exact
from tests.simulation.checkers.fresh import Fresh
from tests.simulation.checkers.never_back import NeverBack
from tests.simulation.checkers.nothing_lost import NothingLost
from tests.simulation.checkers.nothing_skipped import NothingSkipped
from tests.simulation.checkers.once import Once
from tests.simulation.checkers.order import OrderKept
from tests.simulation.checkers.parents_first import ParentsFirst
from tests.simulation.checkers.private import Private
from tests.simulation.checkers.provable import Provable
from tests.simulation.checkers.what_is_answered import AnsweredIsDone
from tests.simulation.world import World

ALL: tuple[type[Checker], ...] = (
    AnsweredIsDone,
    OrderKept,
    ParentsFirst,
    NothingSkipped,
    NeverBack,
    Once,
    Exact,
    Fresh,
    Private,
    Provable,
    ArchiveWhole,
    NothingLost,
)


def all_checkers(world: World) -> list[Checker]:
    return [checker(world) for checker in ALL]
