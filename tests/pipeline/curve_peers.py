"""Key folders, tcp endpoints of their own, and peers of every kind, for tests on real sockets."""

from __future__ import annotations

import random
import time

from pipeline.channels import (
    DEALER,
    SUB,
    HandshakeMonitor,
    Sockets,
    curve_client_options,
    curve_keypair,
    drain,
)
from pipeline.key_files import KeyDirectory
from pipeline.kiosk_sockets import KioskSockets, TransportSettings
from pipeline.security import RoleMap

WAIT_S = 10.0


def free_endpoint():
    """A loopback address that no other test uses; ports are then free."""
    return f"tcp://127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(1, 254)}:5560"


def until(condition, turn=lambda: None):
    """Turn until the condition holds; its value."""
    end = time.monotonic() + WAIT_S
    while not (value := condition()):
        assert time.monotonic() < end, "condition not met in time"
        turn()
    return value


class Site:
    """A key folder, its kiosk sockets, and a second context for the clients."""

    def __init__(self, folder, **transport):
        self.keys = KeyDirectory(folder / "keys")
        self.folder = folder
        self.keys.init()
        self.endpoint = free_endpoint()
        self.transport = TransportSettings(keys=str(self.keys.path), **transport)
        self.bundles = {}

    def client(self, name, role="kiosk"):
        self.bundles[name] = self.keys.add_client(name, role, self.folder / f"{name}.json", self.endpoint)
        return self.bundles[name]

    def __enter__(self):
        self.sockets, self.peers = Sockets(), Sockets()
        try:
            self.kiosk = KioskSockets(self.sockets, self.endpoint, RoleMap(), self.transport)
        except BaseException:
            self.__exit__()
            raise
        self.monitor = HandshakeMonitor(self.kiosk.commands)
        self.received, self.handshakes = [], []
        return self

    def __exit__(self, *_):
        if hasattr(self, "monitor"):
            self.monitor.close()
        self.peers.close()
        self.sockets.close()

    def options(self, name):
        bundle = self.bundles[name]
        return curve_client_options(bundle.server_public_key, bundle.client_public_key, bundle.client_secret_key)

    def connect(self, name=None, **options):
        return self.peers.open(DEALER, self.endpoint, bind=False, **(self.options(name) if name else {}), **options)

    def subscribe(self, name=None, **options):
        socket = self.peers.open(SUB, self.kiosk.endpoint.events, bind=False,
                                 **(self.options(name) if name else {}), **options)
        socket.subscribe(b"")
        return socket

    def turn(self):
        """What the engine's loop does."""
        self.kiosk.admission.socket.poll(2)
        self.kiosk.admission.answer()
        self.received += list(self.kiosk.receive())
        self.handshakes += self.monitor.poll()

    def hears(self, peer, words):
        """Role of the sender once `words` have come through."""
        peer.send(words)
        until(lambda: any(frames == [words] for _, _, frames in self.received), self.turn)
        return next(role for _, role, frames in self.received if frames == [words])


def strange_options(site, kind):
    """Options of peers that must be refused, by name."""
    server, stranger, other = site.keys.curve_server().public_key, curve_keypair(), curve_keypair()
    known = next(iter(site.bundles.values()))
    return {
        "null": {},
        "plain": {"plain_username": b"kiosk", "plain_password": b"kiosk"},
        "no_key": {"curve_serverkey": server.encode()},
        "wrong_server_key": curve_client_options(other[0], known.client_public_key, known.client_secret_key),
        "key_of_another": curve_client_options(server, known.client_public_key, stranger[1]),
        "unauthorised_key": curve_client_options(server, *stranger),
        "server_key_as_client": curve_client_options(server, server, site.keys.curve_server().secret_key),
    }[kind]


def got(socket):
    """Messages that wait."""
    return list(drain(socket))
