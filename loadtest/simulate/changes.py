"""What happens to hosts: deaths, their replacement, and deploys that restart them a few at a time."""

from collections import deque
from collections.abc import Sequence
from functools import partial

from loadtest.simulate.balancer import Balancer
from loadtest.simulate.events import Events
from loadtest.simulate.inputs import Fleet, Host
from loadtest.simulate.server import Server, State


class Changes:
    """deaths: so far. deployed_s: when the last deploy was done, None while it is not."""

    def __init__(self, events: Events, servers: Sequence[Server], balancer: Balancer, fleet: Fleet, host: Host) -> None:
        self._events, self._servers, self._balancer = events, servers, balancer
        self._fleet, self._host = fleet, host
        self._to_restart: deque[Server] = deque()
        self.deaths = 0
        self.deployed_s: float | None = None

    def kill(self, server: Server) -> None:
        """The node is gone now; the balancer notices later, and another node takes its place."""
        if server.state is State.DOWN:
            return
        self.deaths += 1
        server.die()
        self._events.after(self._fleet.notice_s, self._notice, server)
        back_s = max(self._fleet.notice_s, self._fleet.replace_s + self._host.load_s)
        self._events.after(back_s, self._ready, server)

    def down(self, server: Server) -> None:
        """It has been away for a while, and the balancer knows. It does not come back."""
        self._balancer.leave(server)
        server.die()
        server.break_off()

    def deploy(self, at_once: int) -> None:
        """Restarts all hosts: each is taken from the balancer, drains, and loads anew."""
        self._to_restart = deque(self._servers)
        for _ in range(at_once):
            self._restart_next()

    def _restart_next(self) -> None:
        while self._to_restart:
            server = self._to_restart.popleft()
            if server.state is State.READY:
                self._balancer.leave(server)
                server.drain(partial(self._load, server))
                return
        self.deployed_s = self._events.now_s

    def _load(self, server: Server) -> None:
        self._events.after(self._host.load_s, self._loaded, server)

    def _loaded(self, server: Server) -> None:
        self._ready(server)
        self._restart_next()

    def _notice(self, server: Server) -> None:
        self._balancer.leave(server)
        server.break_off()

    def _ready(self, server: Server) -> None:
        server.start()
        self._balancer.join(server)
