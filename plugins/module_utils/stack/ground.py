# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether this machine can run what is wanted: ports, networks, models, images. Looked at before the first change."""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..doors.compose import Compose, Container
from ..doors.host import Host
from .model import Wanted

_LISTEN = "0A"
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 what the kernel calls all addresses


def listeners(host: Host) -> set[tuple[str, int]]:
    """Addresses and TCP ports on which something listens (proc(5), /proc/net/tcp)."""
    found = set()
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in (host.text(path) or "").splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTEN:
                address, _colon, port = fields[1].partition(":")
                found.add((_address(address), int(port, 16)))
    return found


def _address(text: str) -> str:
    """An address as /proc/net/tcp writes it: 32-bit words in the byte order of a little-endian machine."""
    words = [bytes.fromhex(text[place : place + 8])[::-1] for place in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def ports_taken(wanted: Sequence[Wanted], containers: Sequence[Container], used: set[tuple[str, int]]) -> Iterator[str]:
    """Ports that somebody else has."""
    ours = {pair for one in containers if one.running for pair in one.ports}
    for one in wanted:
        for text in one.definition.get("ports", ()):
            bind, port, _inside = str(text).split(":")
            for address, number in sorted(used):
                clash = number == int(port) and (address == bind or bind in _EVERYWHERE or address in _EVERYWHERE)
                if clash and not any(number == our_port for _address, our_port in ours):
                    yield (
                        f"service {one.name}: port {port} on {bind} is taken by another program "
                        f"(ss -ltnp 'sport = :{port}' names it); stop that, or give the service another port"
                    )
                    break


def network_taken(host: Host, compose: Compose, wanted: Mapping[str, Any]) -> Iterator[str]:
    """Networks of the machine that the stack's own would overlap."""
    mine = f"{compose.project}_stack"
    for part in (wanted.get("stack") or {}).get("ipam", {}).get("config", ()):
        subnet = ipaddress.IPv4Network(part["subnet"])
        networks = compose.networks()
        for name, subnets in sorted(networks.items()):
            if name != mine and any(subnet.overlaps(ipaddress.ip_network(one)) for one in subnets):
                yield f"subnet {subnet}: the Docker network {name} has it; set service_stack_subnet to another"
        known = {one for subnets in networks.values() for one in subnets}
        for interface, route in _routes(host):
            if str(route) not in known and route.prefixlen and subnet.overlaps(route):
                yield f"subnet {subnet}: {interface} leads to {route}; set service_stack_subnet to another"


def _routes(host: Host) -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    for line in (host.text("/proc/net/route") or "").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7:
            target, mask = (ipaddress.IPv4Address(bytes.fromhex(fields[place])[::-1]) for place in (1, 7))
            yield fields[0], ipaddress.IPv4Network(f"{target}/{mask}", strict=False)


def models(host: Host, wanted: Sequence[Wanted]) -> Iterator[str]:
    """Models that are missing, or that the user of the service cannot read: llama.cpp then says No such file."""
    for one in wanted:
        uid, gid = (int(part) for part in str(one.definition["user"]).split(":"))
        for path in one.models:
            found = host.stat(path)
            if found is None:
                yield f"service {one.name}: model: {path} is not there; load it with the role model_store"
                continue
            if stat.S_ISREG(found.st_mode) and found.st_size == 0:
                yield f"service {one.name}: model: {path} is empty; load it again with the role model_store"
            shift = 6 if found.st_uid == uid else 3 if found.st_gid == gid else 0
            if not found.st_mode >> shift & 4:
                mode = f"{stat.S_IMODE(found.st_mode):04o}"
                yield f"service {one.name}: model: user {uid} cannot read {path} (mode {mode}); make it 0644"


def images(compose: Compose, wanted: Sequence[Wanted]) -> Iterator[str]:
    """Images that would have to be built first."""
    for one in wanted:
        name = str(one.definition["image"])
        if one.definition.get("pull_policy") == "never" and compose.image(name) is None:
            yield f"service {one.name}: image: {name} is not on this machine; build it with playbooks/images.yml"
