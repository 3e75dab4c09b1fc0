#!/usr/bin/env python3
"""A proxy between a server under test and PostgreSQL that breaks what it is told to, at the message
it is told to. usage: pg_proxy.py HOST PORT, those of PostgreSQL. It listens on free ports of
127.0.0.1, says "listening PORT CONTROL" and ends with SIGTERM.

On the port CONTROL it takes lines, and answers each with one:
    arm FAULT WAY NUMBER TRIGGER    the next fault, once; it replaces one that has not come to pass
    disarm       no fault; what stalls goes on stalling
    status       triggered=1 fired=0 forth=7 back=3 sessions=2 message=-
    settle       answers when PostgreSQL has closed each session that a fault cut off
    release      what stalls goes on
    cut          cuts all sessions now
    freeze, thaw nothing passes, in either way; all passes again
    refuse, accept  new connections are closed at once; are taken again

FAULT   cut (FIN to the server under test), reset (RST), stall, corrupt (a type that no message has),
        delay:MS, or none, which only counts
WAY     forth, to PostgreSQL, or back
NUMBER  of the message at which it happens; those before it were delivered, a message that is cut or
        stalls was not
TRIGGER from which message on this session's are counted, in each way by itself: "any", the first of
        a session that is set up; "connect", the first of a new session; "sql TEXT", the first that
        runs or prepares a statement that contains TEXT

PostgreSQL's side is never reset: it gets a FIN and may end what it has begun, as behind a network
that broke. SSL is refused. Requests to cancel pass, and are not counted."""
import asyncio
import signal
import socket
import struct
import sys

SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
CHUNK = 65536
FORTH, BACK = "forth", "back"
FAULTS = ("cut", "reset", "stall", "corrupt", "delay", "none")


class Splitter:
    """Makes messages of the bytes of one way. A client's first message has no type."""

    def __init__(self, typed):
        self.typed = typed
        self.rest = b""

    def split(self, data):
        self.rest += data
        messages = []
        position = 0
        while True:
            size = self._size(position)
            if size is None or position + size > len(self.rest):
                break
            messages.append(self.rest[position:position + size])
            position += size
            self.typed = True
        self.rest = self.rest[position:]
        return messages

    def _size(self, position):
        head = 1 if self.typed else 0
        if position + head + 4 > len(self.rest):
            return None
        return head + struct.unpack_from("!i", self.rest, position + head)[0]


class Fault:
    def __init__(self, kind, way, number, trigger):
        self.kind, _, delay = kind.partition(":")
        if self.kind not in FAULTS or way not in (FORTH, BACK):
            raise ValueError
        self.seconds = int(delay or 0) / 1000
        self.way = way
        self.number = int(number)
        self.trigger = trigger
        self.session = None  # whose messages are counted
        self.counts = {FORTH: 0, BACK: 0}
        self.fired = False
        self.message = "-"  # type of the message that it hit

    def triggers(self, session, way, sql):
        if way != FORTH:
            return False
        if self.trigger.startswith("sql "):
            return self.trigger[4:].lower() in sql.lower()
        return self.trigger == "any" or session.fresh

    def hits(self, session, way, message, sql):
        """Counts the message; true if it is the one."""
        if self.fired or (self.trigger != "connect" and not session.ready):
            return False
        if not self.session and self.triggers(session, way, sql):
            self.session = session
        if self.session is not session:
            return False
        self.counts[way] += 1
        self.fired = (self.kind != "none" and way == self.way and
                      self.counts[way] == self.number)
        if self.fired:
            self.message = chr(message[0]) if message[0] else "startup"
        return self.fired


class Session:
    """A connection of the server under test, and the one to PostgreSQL that belongs to it."""

    def __init__(self, proxy, client, server):
        self.proxy = proxy
        self.readers = {FORTH: client[0], BACK: server[0]}
        self.writers = {FORTH: server[1], BACK: client[1]}
        self.splitters = {FORTH: Splitter(False), BACK: Splitter(True)}
        self.statements = {}  # name of a prepared statement -> its text
        self.fresh = True  # its first message is yet to come
        self.ready = False  # PostgreSQL has said that it is ready
        self.deaf = False  # it was cut: what comes is thrown away

    async def run(self):
        ways = [asyncio.create_task(self._carry(way)) for way in (FORTH, BACK)]
        await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
        for writer in self.writers.values():
            writer.close()

    async def _carry(self, way):
        """Carries one way until its sender closes, then closes the receiver's side."""
        try:
            while data := await self.readers[way].read(CHUNK):
                await self._pass(way, data)
            await self.proxy.flowing.wait()
            if not self.deaf:
                end_output(self.writers[way])
        except OSError:
            self._abandon(way)

    def _abandon(self, way):
        """The connection of one side broke: PostgreSQL hears it as an end, the other as a reset."""
        self.deaf = True
        end_output(self.writers[FORTH])
        if way == BACK:
            reset(self.writers[BACK])

    async def _pass(self, way, data):
        passed = []
        for message in self.splitters[way].split(data):
            if self.deaf:
                return
            if self._is_encryption_request(way, message):
                self.writers[BACK].write(b"N")
                self.splitters[FORTH].typed = False
                continue
            if self._is_hit(way, message):
                await self._send(way, passed)
                passed = await self._suffer(way, message)
            else:
                passed.append(message)
        await self._send(way, passed)

    async def _send(self, way, messages):
        await self.proxy.flowing.wait()
        if messages and not self.deaf:
            self.writers[way].write(b"".join(messages))
            await self.writers[way].drain()

    def _is_encryption_request(self, way, message):
        return (way == FORTH and self.fresh and len(message) == 8 and
                struct.unpack("!ii", message)[1] in (SSL_REQUEST, GSS_REQUEST))

    def _is_hit(self, way, message):
        if self.fresh and way == FORTH and is_cancel(message):
            self.fresh = False
            return False
        fault = self.proxy.fault
        sql = self._sql(way, message)
        hit = fault and fault.hits(self, way, message, sql)
        self.fresh = self.fresh and way == BACK
        self.ready = self.ready or (way == BACK and message[:1] == b"Z")
        return hit

    def _sql(self, way, message):
        """The text of the statement that a message is about, or ""."""
        kind = message[:1]
        if way == BACK or kind not in (b"Q", b"P", b"B"):
            return ""
        first, _, rest = message[5:].partition(b"\0")
        second = rest.partition(b"\0")[0].decode(errors="replace")
        if kind == b"Q":
            return first.decode(errors="replace")
        if kind == b"P":
            self.statements[first.decode()] = second
            return second
        return self.statements.get(second, "")

    async def _suffer(self, way, message):
        """Lets the fault happen; gives what is to be sent nevertheless."""
        fault = self.proxy.fault
        if fault.kind in ("cut", "reset"):
            self.cut(fault.kind == "reset")
            return []
        if fault.kind == "stall":
            return await self._hold(way, message)
        if fault.kind == "corrupt":
            return [b"\x7f" + message[1:]]
        await asyncio.sleep(fault.seconds)
        return [message]

    def cut(self, by_reset=False):
        """PostgreSQL gets a FIN; its answers are thrown away until it closes."""
        if self.deaf:
            return
        self.deaf = True
        if by_reset:
            reset(self.writers[BACK])
        else:
            self.writers[BACK].close()
        end_output(self.writers[FORTH])

    async def _hold(self, way, message):
        """Keeps the message and all behind it until it is released; nothing is left of them if the
        sender closes before that."""
        released = asyncio.create_task(self.proxy.released.wait())
        held = [message]
        while not released.done():
            coming = asyncio.create_task(self.readers[way].read(CHUNK))
            await asyncio.wait({released, coming}, return_when=asyncio.FIRST_COMPLETED)
            coming.cancel()  # does nothing to one that is done; a reader has one waiter at most
            await asyncio.wait({coming})
            if coming.cancelled():
                continue
            if not (data := coming.result()):
                released.cancel()
                return []
            held += self.splitters[way].split(data)
        return held


def is_cancel(message):
    return len(message) == 16 and struct.unpack_from("!ii", message)[1] == CANCEL_REQUEST


def end_output(writer):
    """Sends a FIN behind what was written; the other way goes on."""
    try:
        writer.write_eof()
    except OSError:
        pass  # there is nobody left to tell


def reset(writer):
    """Closes so that the other side gets a RST."""
    if writer.is_closing():
        return
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                               struct.pack("ii", 1, 0))
    writer.transport.abort()


class Proxy:
    def __init__(self, host, port):
        self.target = host, port
        self.fault = None
        self.sessions = set()
        self.accepting = True
        self.flowing = asyncio.Event()  # cleared while frozen
        self.flowing.set()
        self.released = asyncio.Event()
        self.changed = asyncio.Condition()  # a session has ended

    async def serve(self):
        front = await asyncio.start_server(self._on_client, "127.0.0.1", 0)
        control = await asyncio.start_server(self._on_control, "127.0.0.1", 0)
        ports = [server.sockets[0].getsockname()[1] for server in (front, control)]
        print("listening", *ports, flush=True)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        await ended.wait()

    async def _on_client(self, reader, writer):
        await self.flowing.wait()
        try:
            server = await asyncio.open_connection(*self.target) if self.accepting else None
        except OSError:
            server = None
        if not server:
            reset(writer)
            return
        session = Session(self, (reader, writer), server)
        self.sessions.add(session)
        await session.run()
        async with self.changed:
            self.sessions.remove(session)
            self.changed.notify_all()

    async def _on_control(self, reader, writer):
        while line := await reader.readline():
            writer.write((await self._obey(line.decode().split()) + "\n").encode())
            await writer.drain()
        writer.close()

    async def _obey(self, words):
        handler = getattr(self, "order_" + words[0], None) if words else None
        if not handler:
            return "unknown order"
        try:
            return await handler(*words[1:]) or "ok"
        except (TypeError, ValueError):
            return "wrong arguments"

    async def order_arm(self, kind, way, number, *trigger):
        self.fault = Fault(kind, way, number, " ".join(trigger) or "any")
        self.released.clear()

    async def order_disarm(self):
        self.fault = None

    async def order_status(self):
        fault = self.fault or Fault("none", FORTH, 0, "any")
        return (f"triggered={int(fault.session is not None)} fired={int(fault.fired)} "
                f"forth={fault.counts[FORTH]} back={fault.counts[BACK]} "
                f"sessions={len(self.sessions)} message={fault.message}")

    async def order_settle(self):
        async with self.changed:
            await self.changed.wait_for(
                lambda: not any(session.deaf for session in self.sessions))

    async def order_release(self):
        self.released.set()

    async def order_cut(self):
        for session in list(self.sessions):
            session.cut()

    async def order_freeze(self):
        self.flowing.clear()

    async def order_thaw(self):
        self.flowing.set()

    async def order_refuse(self):
        self.accepting = False

    async def order_accept(self):
        self.accepting = True


if __name__ == "__main__":
    asyncio.run(Proxy(sys.argv[1], int(sys.argv[2])).serve())
