"""kill -9 of either service and of the client, again and again: what was acknowledged is there, and nothing else."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.kills.journal import Journal
from tests.faults.kills.settled import check_everything
from tests.support.killable_pair import INGEST, REGISTRY, Pair, pair_in

ROUNDS = int(os.environ.get("LADING_KILL_ROUNDS", "24"))
SEED = int(os.environ.get("LADING_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
# Rounds after which everything is stopped, and all that was acknowledged is looked for.
ROUNDS_A_CHECK = max(8, ROUNDS // 10)
CLIENT = "client"
VICTIMS = ((INGEST,), (REGISTRY,), (CLIENT,), (INGEST, REGISTRY), (INGEST, REGISTRY, CLIENT))
# Garbage all the time, of packs that are small enough to be many.
FLAGS = (
    *("--pack-target-bytes", str(1 << 20)),
    *("--gc-period-seconds", "0.3", "--trash-seconds", "0.5", "--session-ttl-seconds", "2"),
)
# Within this a client does something, or the services do not work any more.
PATIENCE_SECONDS = 120.0


class ClientProcess:
    """The client, and the journal that it writes."""

    def __init__(self, pair: Pair, seed: int) -> None:
        self.directory = pair.directory
        environment = os.environ | {"LADING_API_KEY": pair.admin_key}
        (self.directory / "journal").touch()
        command = [sys.executable, "-m", "tests.faults.kills.client", pair.url, str(pair.directory), str(seed)]
        self._process = subprocess.Popen(command, env=environment)

    def answers(self) -> int:
        """How many changes were acknowledged so far, to this client and those before it."""
        return (self.directory / "journal").read_bytes().count(b'"what": "answer"')

    async def do_some(self, more: int, rng: random.Random) -> None:
        """Return when so many more changes were acknowledged, at some moment between two of them."""
        goal, deadline = self.answers() + more, time.monotonic() + PATIENCE_SECONDS
        while self.answers() < goal:
            assert self._process.poll() is None, f"the client ended: {Journal(self.directory / 'journal').known.wrong}"
            assert time.monotonic() < deadline, "the client does not get on"
            await asyncio.sleep(rng.random() / 50)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it after what it is doing."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        assert self._process.wait() == 0, Journal(self.directory / "journal").known.wrong

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()


@pytest.mark.slow
async def test_nothing_is_lost_and_nothing_left_when_anything_is_killed_at_any_moment(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    print(f"seed {SEED}, {ROUNDS} rounds")
    kills: Counter[str] = Counter()
    with pair_in(tmp_path) as pair:
        pair.start(*FLAGS)
        client = ClientProcess(pair, rng.randrange(1 << 32))
        try:
            for number in range(1, ROUNDS + 1):
                await client.do_some(rng.randint(1, 25), rng)
                victims = rng.choice(VICTIMS)
                for victim in rng.sample(victims, len(victims)):
                    if victim == CLIENT:
                        client.kill()
                    else:
                        pair.kill(victim)
                kills.update(victims)
                pair.start(*FLAGS)
                if CLIENT in victims:
                    client = ClientProcess(pair, rng.randrange(1 << 32))
                if number % ROUNDS_A_CHECK == 0 or number == ROUNDS:
                    # Everything works again, and the client knows of SIGTERM.
                    await client.do_some(1, rng)
                    client.stop()
                    await check(pair)
                    client = ClientProcess(pair, rng.randrange(1 << 32))
                    print(f"round {number}: {dict(kills)} killed, {client.answers()} changes acknowledged", flush=True)
        finally:
            client.close()


async def check(pair: Pair) -> None:
    """Look at everything; see check_everything."""
    journal = Journal(pair.directory / "journal")
    try:
        assert journal.known.wrong == []
        await check_everything(pair, journal, *FLAGS)
    finally:
        journal.close()
