"""How often a wrong password may be given: guessing takes years, and its owner is not locked out by who guesses."""

from __future__ import annotations

import math
from collections import OrderedDict

from retrieval.ui.limits.pace import Pace

_GROUPS = 10_000  # that user names fall into, known ones and others alike: memory stays bounded
_FRIENDS = 1_000


class Attempts:
    """Ten wrong passwords of a visitor at once, and one every 6 s after that; 60 for a user from everywhere, and one a
    second after that.

    Where a user has logged in before, the second limit does not hold: others who guess do not lock this one out.
    """

    def __init__(self) -> None:
        self._of_visitor, self._of_user = Pace(1 / 6, 10), Pace(1.0, 60)
        self._friends: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait(self, visitor: str | None, user: str) -> int:
        """Whole seconds until another password is looked at; 0 for at once."""
        waits = []
        if visitor is not None:
            waits.append(self._of_visitor.wait(visitor))
        if visitor is None or (visitor, user) not in self._friends:
            waits.append(self._of_user.wait(hash(user) % _GROUPS))
        return math.ceil(max(waits))

    def wrong(self, visitor: str | None, user: str) -> None:
        """Count a wrong password."""
        self._of_user.count(hash(user) % _GROUPS)
        if visitor is not None:
            self._of_visitor.count(visitor)

    def right(self, visitor: str | None, user: str) -> None:
        """Remember where a user has logged in."""
        if visitor is None:
            return
        self._friends[visitor, user] = None
        self._friends.move_to_end((visitor, user))
        if len(self._friends) > _FRIENDS:
            self._friends.popitem(last=False)
