"""Services that need a session stand still without one, and it is said once."""

from __future__ import annotations

from structlog.testing import capture_logs

from pipeline.app.poll_only import OFF, NeedsSession, PollOnly
from pipeline.errors import TransactionPooler
from pipeline.runtime import Health, Supervisor
from tests.conftest import eventually


class Listener:
    """Finds a transaction pooler."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ran = False

    async def start(self) -> None:
        raise TransactionPooler("a pooler answers")

    async def run(self) -> None:
        self.ran = True

    async def stop(self) -> None: ...

    def healthy(self) -> Health:
        return Health(False, "not listening")


async def test_three_services_that_are_off_are_well_and_told_of_once() -> None:
    entered: list[bool] = []
    poll_only = PollOnly(lambda: entered.append(True))
    listeners = [Listener(name) for name in "abc"]
    supervisor = Supervisor([NeedsSession(one, poll_only) for one in listeners], drain_timeout=5)
    with capture_logs() as logged:
        supervisor.start()
        await eventually(lambda: all(one.ok for one in supervisor.health().values()))
        health = supervisor.health()
        await supervisor.stop()
    assert health == dict.fromkeys("abc", Health(True, OFF))
    assert [state.restarts for state in supervisor.states.values()] == [0, 0, 0]
    assert not any(one.ran for one in listeners)
    assert (poll_only.on, entered) == (True, [True])
    assert [line["hint"] for line in logged] == [TransactionPooler.default_hint]
