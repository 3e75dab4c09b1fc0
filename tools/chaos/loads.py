"""The clients of a chaos run: each asks for one thing after another, and remembers what it was told."""
import asyncio
import collections
import json
import random
import socket
import struct
import time
from dataclasses import dataclass

PATIENCE = 30  # seconds; only a request that hangs takes this long
SLACK = 6  # seconds past its deadline that an answer may take on a busy machine
NEW_SCORE = 100
AWAY = {503, 504}  # what anything may be answered while something is broken


@dataclass
class Kind:
    name: str
    weight: float
    method: str
    path: str
    deadline: float
    good: set  # statuses it may be answered with when nothing is broken


CREATES = [
    Kind("create", 30, "POST", "/users", 2, {201}),
    Kind("create alone", 10, "POST", "/chaos/users", 2, {201}),
    Kind("create and raise", 3, "POST", "/chaos/users", 2, {500}),
    Kind("create and vanish", 5, "POST", "/users", 2, {201}),
]
READS = [
    Kind("read", 25, "GET", "/users/{id}", 2, {200}),
    Kind("list", 5, "GET", "/users?limit=50", 2, {200}),
    Kind("echo", 10, "GET", "/chaos/echo/{n}", 2, {200}),
    Kind("slow", 3, "GET", "/chaos/slow", 2, {200}),
]
TROUBLE = [
    Kind("late", 2, "GET", "/chaos/late", 0.5, {504}),
    Kind("spin", 1, "GET", "/chaos/spin", 0.3, {504}),
    Kind("bomb", 0.5, "GET", "/chaos/bomb", 2, {500}),
]


class Ledger:
    """What the clients were told, and what was wrong with it."""

    def __init__(self):
        self.verdicts = {}  # username -> "there", "absent" or "unknown"
        self.told = {}  # username -> what its client was told, in words
        self.ids = []  # of users that are there
        self.outcomes = collections.Counter()  # (kind, status)
        self.broken = []  # requests whose connection broke before the answer, in words
        self.latest = 0.0  # seconds past its deadline that an answer came
        self.findings = []

    def begin_epoch(self):
        self.verdicts, self.told, self.ids, self.broken = {}, {}, [], []

    def find(self, words):
        self.findings.append(words)
        print(f"{time.strftime('%H:%M:%S')} FINDING: {words}", flush=True)


class Client:
    def __init__(self, number, seed, port, ledger, kinds):
        self.number = number
        self.random = random.Random(f"{seed} client {number}")
        self.port = port
        self.ledger = ledger
        self.kinds = kinds
        self.count = 0
        self.streams = None

    async def run(self, stopping):
        while not stopping.is_set():
            await self._ask(self.random.choices(self.kinds, [k.weight for k in self.kinds])[0])
            await asyncio.sleep(self.random.uniform(0, 0.02))
        self._hang_up()

    async def _ask(self, kind):
        self.count += 1
        n = self.random.randrange(2 ** 53)
        user_id = self.random.choice(self.ledger.ids) if self.ledger.ids else None
        if user_id is None and kind.name == "read":
            return
        name = f"user {self.number} {self.count}"
        if kind in CREATES:
            self.ledger.verdicts[name] = "unknown"
        path = kind.path.format(id=user_id, n=n)
        begun = time.monotonic()
        status, answer = await self._request(kind, path, self._body(kind, name))
        late = time.monotonic() - begun - kind.deadline
        self.ledger.outcomes[kind.name, describe(status, answer)] += 1
        if status is None:
            # Behind its deadline the server may cut a client off that has no answer yet.
            if kind.name != "create and vanish" and late < 0:
                self.ledger.broken.append(f"{time.strftime('%H:%M:%S')} {kind.method} {path}, "
                                          f"{-late:.2f} s before its deadline")
            return
        if late > 0:
            self._hang_up()  # the server may cut off whom it answers so late, behind the answer too
        self._judge(kind, path, status, answer, late)
        if kind in CREATES:
            self._note(kind, name, status, answer)
        elif status == 200:
            self._compare(kind, answer, user_id, n)

    def _body(self, kind, name):
        if kind not in CREATES:
            return None
        return {"username": name, "score": NEW_SCORE, "raise": kind.name == "create and raise",
                "copy": self.random.random() < 0.3,
                "profile": {"firstname": "First", "lastname": "Last"}}

    def _judge(self, kind, path, status, answer, late):
        unknown = kind in CREATES and is_unknown(answer)
        if status not in kind.good | AWAY and not unknown:
            self.ledger.find(f"{kind.method} {path} was answered {status}: {answer}")
        self.ledger.latest = max(self.ledger.latest, late)
        if late > SLACK:
            self.ledger.find(f"{kind.method} {path} took {late:.1f} s more than its deadline")

    def _note(self, kind, name, status, answer):
        self.ledger.told[name] = f"{kind.name}: {status} {answer}"
        if status == 201:
            self.ledger.verdicts[name] = "there"
            self.ledger.ids.append(answer["id"])
        elif not is_unknown(answer):
            self.ledger.verdicts[name] = "absent"

    def _compare(self, kind, answer, user_id, n):
        if kind.name == "read" and answer["id"] != user_id:
            self.ledger.find(f"asked for user {user_id}, got {answer}")
        elif kind.name == "echo" and answer["n"] != n:
            self.ledger.find(f"asked for {n}, got {answer}")
        elif kind.name == "list":
            ids = [user["id"] for user in answer]
            if ids != sorted(set(ids)):
                self.ledger.find(f"the list is not in order: {ids}")

    async def _request(self, kind, path, body):
        """Status and decoded body; nothing if the connection broke."""
        try:
            if not self.streams:
                self.streams = await asyncio.open_connection("127.0.0.1", self.port)
            self.streams[1].write(format_request(kind.method, path, body))
            if kind.name == "create and vanish":
                await asyncio.sleep(self.random.uniform(0, 0.05))
                self._hang_up(self.random.random() < 0.5)
                return None, None
            status, answer, closes = await asyncio.wait_for(read_answer(self.streams[0]), PATIENCE)
            if closes:
                self._hang_up()
            return status, answer
        except asyncio.TimeoutError:
            self.ledger.find(f"{kind.method} {path} was not answered in {PATIENCE} s")
        except (OSError, asyncio.IncompleteReadError):
            pass
        self._hang_up()
        return None, None

    def _hang_up(self, by_reset=False):
        if not self.streams:
            return
        writer, self.streams = self.streams[1], None
        if by_reset:
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            writer.close()


def format_request(method, path, body):
    text = json.dumps(body).encode() if body else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n"
    return head.encode() + b"\r\n" + text


async def read_answer(reader):
    """Status, decoded body, and whether the server closes the connection behind it."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return int(lines[0].split()[1]), json.loads(body), headers.get("connection") == "close"


def is_unknown(answer):
    return isinstance(answer, dict) and answer.get("type", "").endswith("/outcome-unknown")


def describe(status, answer):
    if status is None:
        return "no answer"
    if isinstance(answer, dict) and "type" in answer:
        return f"{status} {answer['type'].rpartition('/')[2]}"
    return str(status)
