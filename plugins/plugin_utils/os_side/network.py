# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Serving clients over long distances. Sources: Documentation/networking/ip-sysctl.rst, tc-fq(8).

Clients on the same machine or the same switch gain nothing, so no profile asks for it. Containers have network settings
of their own.
"""

from __future__ import annotations

from .parts import Parts, Wishes

BUFFER_BYTES = 16 << 20


def wan(wishes: Wishes) -> Parts:
    """os_tuning_serves_wan: BBR with fair queueing, and buffers for the bandwidth times the delay."""
    name = "os_tuning_serves_wan"
    if not wishes.flag(name):
        return Parts()
    if wishes.container:
        return wishes.impossible(name, "network", "a container does not have the network settings of its host")
    loadable = wishes.fact("kernel", "loadable")
    if loadable is not None and "tcp_bbr" not in loadable:
        release = wishes.fact("kernel", "release")
        return wishes.impossible(name, "module:tcp_bbr", f"the kernel {release} has no module tcp_bbr")
    buffers = {
        "net.core.rmem_max": BUFFER_BYTES,
        "net.core.wmem_max": BUFFER_BYTES,
        "net.ipv4.tcp_rmem": f"4096 131072 {BUFFER_BYTES}",
        "net.ipv4.tcp_wmem": f"4096 16384 {BUFFER_BYTES}",
    }
    queue = {"net.core.default_qdisc": "fq", "net.ipv4.tcp_congestion_control": "bbr"}
    return Parts(sysctl={**queue, **buffers}, at_least=list(buffers), modules=["tcp_bbr"])
