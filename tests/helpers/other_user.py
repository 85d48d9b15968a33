"""Another user of the machine, who tries what a user can: to be run as root, who may become that user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

NOBODY = 65534
# Prints a JSON list of what succeeded. It becomes the other user when all is imported, as Python may lie where that
# user must not look.
ATTACK = """
import asyncio, json, os, pathlib, pickle, sys, urllib.request
from distributed.core import rpc
from distributed.security import Security

addresses, places, stolen, user = json.load(sys.stdin)
done = []

async def enter(address, way, arguments):
    try:
        async with rpc(f"{way}://{address}", timeout=3, connection_args=arguments) as remote:
            identity = await asyncio.wait_for(remote.identity(), 3)
            done.append(f"{way} {address} is open: {identity['type']}")
            result = await asyncio.wait_for(remote.run(function=pickle.dumps(os.getuid)), 3)
            done.append(f"{way} {address} ran code: {result['status']}")
    except Exception:
        pass

async def enter_all(addresses):
    await asyncio.gather(*(enter(address, way, given) for address in addresses for way, given in ways.items()))

def page(address, path):
    try:
        with urllib.request.urlopen(f"http://{address}/{path}", timeout=2) as answer:
            done.append(f"http {address}/{path}: {answer.status}")
    except OSError as error:
        if hasattr(error, "code"):
            done.append(f"http {address}/{path} answers {error.code}")
    except Exception:
        pass

def touch(place):
    place = pathlib.Path(place)
    for what, attempt in {
        "lists": lambda: os.listdir(place) if place.is_dir() else place.open("rb").close(),
        "writes": lambda: (place / "planted").touch() if place.is_dir() else place.open("r+b").close(),
        "moves": lambda: place.rename(place.with_name("moved")),
        "removes": lambda: place.rmdir() if place.is_dir() else place.unlink(),
    }.items():
        try:
            attempt()
            done.append(f"{what} {place}")
        except OSError:
            pass

key = Security.temporary()
if stolen:
    names = ("ca_file", "client_cert", "client_key")
    key = Security(require_encryption=True, **{f"tls_{name}": text for name, text in zip(names, stolen)})
ways = {"tcp": {}, "tls": key.get_connection_args("client")}
asyncio.run(enter_all(["127.0.0.1:1"]))
page("127.0.0.1:1", "")
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
asyncio.run(enter_all(addresses))
for address in addresses:
    page(address, "info/main/workers.html")
for place in places:
    touch(place)
print(json.dumps(done))
"""


def attack(addresses: Iterable[str], places: Iterable[Path], stolen: tuple[str, ...] = ()) -> list[str]:
    """Return what another user achieves at these addresses (HOST:PORT), files and folders.

    ``stolen`` are authority, certificate and key as PEM; without them the other user makes some.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    words = json.dumps([list(addresses), [str(place) for place in places], stolen, NOBODY])
    command = [sys.executable, "-B", "-c", ATTACK]
    done = subprocess.run(command, input=words, cwd="/", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [str(line) for line in json.loads(done.stdout)]


def listening(*pids: int) -> dict[str, psutil.Process]:
    """Return the TCP addresses (HOST:PORT) at which processes and their descendants listen."""
    there: dict[str, psutil.Process] = {}
    for process in (psutil.Process(pid) for pid in pids):
        for one in [process, *process.children(recursive=True)]:
            for connection in one.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    there[f"{connection.laddr.ip}:{connection.laddr.port}"] = one
    return there
