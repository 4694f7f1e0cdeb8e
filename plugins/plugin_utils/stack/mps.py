# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several services on one GPU through NVIDIA's multi-process service (MPS).

Its rules, from NVIDIA's MPS documentation: one user for all clients of a server, the pipe directory of the control
daemon in every container, the host's IPC namespace, GPUs by UUID. A client that finds no daemon goes on without MPS
and says nothing; a client's fatal fault ends all clients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .options import Options
from .wishes import Service

UNIT = "ai-workstation-mps.service"


def environment(service: Service, options: Options) -> dict[str, str]:
    """Variables of an MPS client."""
    if not service.mps:
        return {}
    found = {"CUDA_MPS_PIPE_DIRECTORY": options.mps_path}
    if service.mps_thread_percent is not None:
        found["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = str(service.mps_thread_percent)
    if service.mps_memory is not None:
        found["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = f"0={int(service.mps_memory) >> 20}M"
    return found


def problems(services: Sequence[Service]) -> Iterator[str]:
    """What keeps MPS clients from sharing a server."""
    clients = [one for one in services if one.mps]
    for one in services:
        yield from _client(one) if one.mps else _other(one, {uuid for client in clients for uuid in client.gpus})
    users = sorted({one.uid for one in clients})
    if len(users) > 1:
        names = ", ".join(f"{one.name} ({one.uid})" for one in clients)
        yield f"mps: a server serves one user, and these clients have several: {names}; give them one user"


def _client(one: Service) -> Iterator[str]:
    where = f"service {one.name}"
    if not one.gpus:
        yield f"{where}: mps: it has no GPU; give it one, or leave mps out"
    if one.ipc != "host":
        yield f"{where}: ipc: {one.ipc!r} with mps; client and server share memory of the host, so leave ipc out"
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY"):
        if name in one.environment:
            yield f"{where}: environment.{name}: with mps it is set by the stack; leave it out"


def _other(one: Service, shared: set[str]) -> Iterator[str]:
    if one.mps_thread_percent is not None or one.mps_memory is not None:
        yield f"service {one.name}: mps_thread_percent and mps_memory are for mps: true"
    if shared & set(one.gpus):
        yield f"service {one.name}: mps: its GPU is shared through MPS by others; set mps: true here as well"


def unit(services: Sequence[Service], options: Options) -> dict[str, str] | None:
    """The unit of the control daemon, which runs as the one user of its clients; None without clients."""
    clients = [one for one in services if one.mps]
    if not clients:
        return None
    gpus = ",".join(sorted({uuid for one in clients for uuid in one.gpus}))
    content = f"""# Written by ai_infra.workstation.
[Unit]
Description=NVIDIA multi-process service for the AI services
After=nvidia-persistenced.service
Before=docker.service

[Service]
Type=forking
User={clients[0].uid}
Group={clients[0].gid}
RuntimeDirectory={options.mps_path.rpartition("/")[2]}
RuntimeDirectoryPreserve=yes
LogsDirectory=ai-workstation-mps
Environment=CUDA_MPS_PIPE_DIRECTORY={options.mps_path}
Environment=CUDA_MPS_LOG_DIRECTORY=/var/log/ai-workstation-mps
Environment=CUDA_VISIBLE_DEVICES={gpus}
ExecStart=/usr/bin/nvidia-cuda-mps-control -d
ExecStop=/bin/sh -c 'echo quit | /usr/bin/nvidia-cuda-mps-control'
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""
    return {"name": UNIT, "content": content}
