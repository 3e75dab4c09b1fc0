"""Idle connections: each has had one request answered, is kept alive, and then stays silent."""
import select
import socket

from .processes import Failed


class IdleConnections:
    def __init__(self, port, path):
        self.address = ("127.0.0.1", port)
        self.request = f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        self.sockets = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection in self.sockets:
            connection.close()

    def grow_to(self, count):
        while len(self.sockets) < count:
            try:
                self.sockets.append(self._open())
            except OSError as reason:
                raise Failed(f"no more than {len(self.sockets)} connections: {reason}") from None

    def check_alive(self):
        """What a server closes or says by itself makes a connection readable."""
        poll = select.poll()
        for connection in self.sockets:
            poll.register(connection, select.POLLIN)
        closed = len(poll.poll(0))
        if closed:
            raise Failed(f"the server closed {closed} of {len(self.sockets)} idle connections")

    def _open(self):
        connection = socket.create_connection(self.address, timeout=5)
        connection.sendall(self.request)
        if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
            raise OSError("a connection was not answered by 200")
        return connection
