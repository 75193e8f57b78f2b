"""Runs a server that would listen on every address, so that it can be reached only at one.

    python -m dev.isolated HOST:PORT COMMAND ...

The command gets a network namespace that has only a loopback. We listen on HOST:PORT outside, with a
socket that we take inside, and pass each connection on to the same port there. If the user is not root,
the kernel must allow user namespaces.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from asyncio import StreamReader, StreamWriter
from contextlib import closing, suppress
from typing import NoReturn


def main() -> int:
    """Runs the command until it ends, or until SIGTERM or SIGINT; returns its exit code."""
    address, *command = sys.argv[1:]
    if not address.isdecimal():
        _move_inside(address, command)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    return asyncio.run(_serve(socket.socket(fileno=int(address)), command))


def _move_inside(address: str, command: list[str]) -> NoReturn:
    """Starts this program again, without a network, and with the socket in place of the address."""
    host, _, port = address.rpartition(":")
    listener = socket.create_server((host, int(port)), backlog=256)
    listener.set_inheritable(True)
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    again = [sys.executable, "-m", "dev.isolated", str(listener.fileno()), *command]
    os.execvp("unshare", ["unshare", *user, "--net", "--", *again])


async def _serve(listener: socket.socket, command: list[str]) -> int:
    # It must not run longer than we do, however we end.
    guard = ["setpriv", "--pdeathsig", "KILL", "--"]
    process = await asyncio.create_subprocess_exec(*guard, *command)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, process.terminate)
    port = listener.getsockname()[1]
    async with await asyncio.start_server(lambda *streams: _connect(port, *streams), sock=listener):
        return await process.wait()


async def _connect(port: int, reader: StreamReader, writer: StreamWriter) -> None:
    # If one side hangs up, also before the command listens, the other connection ends too.
    with closing(writer), suppress(OSError):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(inner_writer):
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))


async def _copy(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


if __name__ == "__main__":
    sys.exit(main())
