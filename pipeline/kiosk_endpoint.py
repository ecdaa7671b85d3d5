"""Endpoints that the kiosk may be served on: `ipc://PATH`, and `tcp://ADDRESS:PORT` with keys."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

_TCP = re.compile(r"tcp://(?P<host>\*|\[[0-9A-Fa-f:.]+\]|[^\[\]:/]+):(?P<port>[0-9]{1,5})")


class EndpointError(ValueError):
    """An endpoint that is not served; the message quotes it and says what would be."""


@dataclass(frozen=True)
class KioskEndpoint:
    """Where commands are taken and events are published.

    Attributes:
        commands, events: what is bound. events_told: what `hello` tells clients; differs from `events` only where all
            addresses are bound. address: None on ipc.
    """

    commands: str
    events: str
    events_told: str
    address: IPv4Address | IPv6Address | None = None

    @property
    def is_tcp(self) -> bool:
        """Reached over a network, or at least over its loopback."""
        return self.address is not None

    @property
    def loopback(self) -> str:
        """A free port on the loopback of the same family, for a probe."""
        return "tcp://[::1]:*" if isinstance(self.address, IPv6Address) else "tcp://127.0.0.1:*"


def parse_endpoint(endpoint: str, *, bind_any_address: bool = False,
                   advertised_host: str | None = None) -> KioskEndpoint:
    """The pair of endpoints: events are at PATH.events, or at PORT + 1.

    Args:
        bind_any_address: allow `tcp://*`, `0.0.0.0` and `[::]`; then `advertised_host` names this machine to clients.

    Raises:
        EndpointError: another scheme, a name instead of an address, a port without a successor, or all addresses
            without the explicit flag.
    """
    if endpoint.startswith("ipc://") and len(endpoint) > len("ipc://"):
        return KioskEndpoint(endpoint, endpoint + ".events", endpoint + ".events")
    found = _TCP.fullmatch(endpoint)
    if found is None:
        raise EndpointError(f"{endpoint!r} is not ipc://PATH or tcp://ADDRESS:PORT")
    host, port = found["host"], int(found["port"])
    try:
        address = ipaddress.ip_address("0.0.0.0" if host == "*" else host.strip("[]"))  # noqa: S104 - judged below
    except ValueError:
        raise EndpointError(f"{endpoint!r}: {host} is not an IP address; name the address of one interface") from None
    if not 1 <= port <= 65534:
        raise EndpointError(f"{endpoint!r}: the port must be 1 to 65534; events are published on the next one")
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    written = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
    told = written
    if address.is_unspecified or (mapped is not None and mapped.is_unspecified):
        if not bind_any_address:
            raise EndpointError(f"{endpoint!r} listens on every address of this machine; name the address of one "
                                "interface, or set kiosk.bind_any_address: true")
        if not advertised_host:
            raise EndpointError(f"{endpoint!r}: clients cannot connect to every address; set kiosk.advertised_host to "
                                "the name or address that they reach this machine by")
    if advertised_host:
        told = f"[{advertised_host}]" if ":" in advertised_host else advertised_host
    return KioskEndpoint(f"tcp://{written}:{port}", f"tcp://{written}:{port + 1}", f"tcp://{told}:{port + 1}", address)
