"""How many pictures one client has inside the service at once: so many that it is not refused."""

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

CUT = 0.7
"""A refusal leaves so much of what is allowed inside: gentler than a half, as `Retry-After` brakes as well."""
GROWTH = 2
"""Once as many pictures as are allowed inside have been served, so many more are. Few keep the service busy, so
there is no hurry, and each refusal costs a second."""


class Outcome(Enum):
    """What became of pictures that were let in."""

    SERVED = auto()
    REFUSED = auto()
    """The service had no room for them, or no time."""
    OTHER = auto()


@dataclass(eq=False)
class Ticket:
    """Of pictures that wait before the gate, or are inside."""

    pictures: int
    opened: Callable[[], object]
    epoch: int = -1
    """How often the limit had been cut when they were let in."""
    is_inside: bool = False


class Gate:
    """Lets pictures in, first come, first served, up to a limit that falls with refusals and rises with answers.

    All threads of a client share it. Nothing waits in here: `opened` is called when the pictures may go.
    """

    def __init__(self) -> None:
        self.limit = math.inf
        """Most pictures inside; more, if a single request has more."""
        self._capacity = math.inf
        self._inside = 0
        self._epoch = 0
        self._waiting: deque[Ticket] = deque()
        self._lock = threading.Lock()

    def has_capacity(self, pictures: int) -> None:
        """The service takes so many at once, as `/info` reports."""
        with self._lock:
            if pictures != self._capacity:
                self._capacity = self.limit = pictures

    def ask(self, pictures: int, opened: Callable[[], object]) -> Ticket:
        """Let pictures in. Calls `opened` once: now, or later from the thread in which others leave."""
        ticket = Ticket(pictures, opened)
        with self._lock:
            self._waiting.append(ticket)
            let_in = self._let_in()
        _call(let_in)
        return ticket

    def leave(self, ticket: Ticket, outcome: Outcome = Outcome.OTHER) -> None:
        """The pictures have left the service, or no longer wait."""
        with self._lock:
            if ticket.is_inside:
                if outcome is Outcome.REFUSED and ticket.epoch == self._epoch:  # several at once count as one
                    self.limit = max(1.0, CUT * min(self.limit, self._inside))
                    self._epoch += 1
                elif outcome is Outcome.SERVED:
                    self.limit = min(self._capacity, self.limit + GROWTH * ticket.pictures / self.limit)
                ticket.is_inside = False
                self._inside -= ticket.pictures
            else:
                self._waiting.remove(ticket)
            let_in = self._let_in()
        _call(let_in)

    def _let_in(self) -> list[Ticket]:
        let_in = []
        while self._waiting and self._inside + self._waiting[0].pictures <= max(self.limit, self._waiting[0].pictures):
            ticket = self._waiting.popleft()
            ticket.is_inside, ticket.epoch = True, self._epoch
            self._inside += ticket.pictures
            let_in.append(ticket)
        return let_in


def _call(let_in: list[Ticket]) -> None:
    for ticket in let_in:
        ticket.opened()
