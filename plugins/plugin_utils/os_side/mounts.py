# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options of the model volume, and /tmp in memory. Sources: mount(8), systemd.mount(5), tmpfs(5)."""

from __future__ import annotations

from ...module_utils.values import size
from .parts import CONF, Parts, Wishes

_TMP_NEEDS_BYTES = 64_000_000_000  # what is sold as 64 GB, less what the firmware keeps
_PACKAGED_SINCE = {"debian": 13}
# systemd-tmpfiles-setup makes it in every boot, after the file systems: where it is there, it is too late for /tmp.
_BOOTED = "/run/systemd/seats"


def mounts(wishes: Wishes) -> Parts:
    """os_tuning_mounts: [{path, options}]."""
    name = "os_tuning_mounts"
    wanted = wishes.value(name, [])
    paths = [str(one.get("path")) for one in wanted]
    return Parts(mounts=list(wanted), optional=paths if wishes.from_profile(name) else [])


def tmp(wishes: Wishes) -> Parts:
    """os_tuning_tmp_size: /tmp in memory, from the next boot on: mounted now it would hide files in use.

    Without the condition systemd mounts it with the next start of any service that has PrivateTmp.
    """
    name = "os_tuning_tmp_size"
    value = wishes.value(name)
    if value is None:
        return Parts()
    limit, total = size(name, value), wishes.fact("memory", "total_bytes")
    if wishes.container:
        return wishes.impossible(name, "tmp", "a container has its mounts from its engine")
    if total and total < _TMP_NEEDS_BYTES and not wishes.flag("os_tuning_tmp_accept"):
        return wishes.impossible(
            name,
            "tmp",
            f"builds and downloads fill /tmp, and this machine has only {total / 1e9:.0f} GB of memory; "
            "it needs 64 GB, or os_tuning_tmp_accept: true",
        )
    options = f"Options=mode=1777,strictatime,nosuid,nodev,size={limit},nr_inodes=1m"
    parts = Parts()
    if _packaged(wishes):
        parts.drop_in(f"/etc/systemd/system/tmp.mount.d/{CONF}", "[Mount]", options, reboot=True)
        return parts
    parts.drop_in(
        "/etc/systemd/system/tmp.mount",
        "[Unit]",
        "Description=Temporary files in memory",
        "ConditionPathIsSymbolicLink=!/tmp",
        f"ConditionPathExists=!{_BOOTED}",
        "DefaultDependencies=no",
        "Conflicts=umount.target",
        "Before=local-fs.target umount.target",
        "After=swap.target",
        "",
        "[Mount]",
        "What=tmpfs",
        "Where=/tmp",
        "Type=tmpfs",
        options,
        "",
        "[Install]",
        "WantedBy=local-fs.target",
        reboot=True,
    )
    parts.own_units.append({"name": "tmp.mount", "unit_file": "enabled"})
    return parts


def _packaged(wishes: Wishes) -> bool:
    """Whether the distribution has tmp.mount where systemd looks for units, and uses it by default."""
    since = _PACKAGED_SINCE.get(str(wishes.fact("kernel", "os", "id")))
    version = str(wishes.fact("kernel", "os", "version_id") or "").partition(".")[0]
    return since is not None and version.isdigit() and int(version) >= since
