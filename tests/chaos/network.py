"""The network between the processes and the database: relays that can stall, lose answers, reset or cut."""

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from psycopg import conninfo

_CHUNK = 65_536


@dataclass(eq=False, slots=True)
class _Line:
    """One connection through a relay. Nothing passes while `flowing` is not set."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    deaf: bool = False
    flowing: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


class Relay:
    """The way of one machine to the database: a TCP port in front of the server's socket.

    What a stalled line holds arrives when it flows again, also from a client that is long gone. Call the
    public methods from any thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, socket_path: str) -> None:
        self._loop = loop
        self._socket_path = socket_path
        self._lines: set[_Line] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stalled = False
        self._is_cut = False
        self._tasks = {loop.create_task(self._listen())}

    def url(self, server_url: str) -> str:
        """Return the server's connection string with this way to it."""
        port = self._listener.getsockname()[1]
        return conninfo.make_conninfo(
            server_url, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable"
        )

    def stall(self, share: float, dice: random.Random) -> None:
        """Hold back what is sent on a `share` of the lines, and on new ones too if that is all of them."""
        self._call(self._stall, share, dice)

    def lose_answers(self) -> None:
        """Let statements pass and swallow what the server says to them."""
        self._call(self._lose_answers)

    def cut(self) -> None:
        """Reset every line and refuse new ones."""
        self._call(self._cut)

    def reset(self, share: float, dice: random.Random) -> None:
        """Reset a `share` of the lines."""
        self._call(self._reset, share, dice)

    def heal(self) -> None:
        """Let everything flow; lines that have lost something are reset."""
        self._call(self._heal)

    def _call(self, function: Any, *arguments: Any) -> None:
        self._loop.call_soon_threadsafe(function, *arguments)

    def _stall(self, share: float, dice: random.Random) -> None:
        self._stalled = share >= 1
        for line in self._lines:
            if dice.random() < share:
                line.flowing.clear()

    def _lose_answers(self) -> None:
        for line in self._lines:
            line.deaf = True

    def _cut(self) -> None:
        self._is_cut = True
        for line in self._lines:
            line.reset()

    def _reset(self, share: float, dice: random.Random) -> None:
        for line in self._lines:
            if dice.random() < share:
                line.reset()

    def _heal(self) -> None:
        self._is_cut = self._stalled = False
        for line in self._lines:
            line.flowing.set()
            if line.deaf:
                line.reset()

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._connect, sock=self._listener)
        async with server:
            await server.serve_forever()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            answers, server = await asyncio.open_unix_connection(self._socket_path)
        except OSError:
            writer.transport.abort()
            return
        line = _Line(writer, server)
        if not self._stalled:
            line.flowing.set()
        self._lines.add(line)
        self._spawn(self._carry(reader, server, line=line))
        self._spawn(self._carry(answers, writer, line=line, answers=True))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        line: _Line,
        answers: bool = False,
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                await line.flowing.wait()
                if not (answers and line.deaf):
                    writer.write(chunk)
                    await writer.drain()
            await line.flowing.wait()
        writer.close()
        self._lines.discard(line)


class Network:
    """All relays, in a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()

    def relay(self, socket_path: str) -> Relay:
        """Open a new way to the server's socket."""

        async def make() -> Relay:
            return Relay(self._loop, socket_path)

        return asyncio.run_coroutine_threadsafe(make(), self._loop).result()

    def close(self) -> None:
        """Cut every line and end the thread."""

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
