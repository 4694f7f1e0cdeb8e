# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's disk image: Debian 12 from packages, GRUB, sshd, and a stand-in for an NVIDIA driver.

Kept outside the checkout, one folder per recipe: what is below and in guest/ decides its name.

    python tests/lab/image.py      build it when it is missing; print where it lies
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "fake_nvml"))

import fake_nvml  # noqa: E402

SUITE = "bookworm"
CARDS = ("rtx5090", "a100", "rtx3090")
STAND_IN = "/opt/nvidia-stand-in"
STAND_IN_STATE = "/var/lib/nvidia-stand-in"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
ROOT_UUID = "6b1c57a6-5d0f-4f0b-8a3c-1ab0f0c0ffee"
DISK_GIB = 8
WEEK = 7 * 24 * 3600  # seconds
START_OF_ROOT = 1 << 20  # bytes; the gap behind the boot sector is GRUB's

PACKAGES = (
    *("systemd", "systemd-sysv", "systemd-oomd", "dbus", "udev", "kmod", "openssh-server", "python3", "python3-apt"),
    *("linux-image-amd64", "initramfs-tools", "grub-pc", "util-linux", "e2fsprogs", "iproute2", "procps", "ethtool"),
    # Whose settings we manage, and a service that a workstation does not need.
    *("irqbalance", "earlyoom", "avahi-daemon"),
    *("strace", "lz4"),  # for the watcher, and for a small and quick initial file system
)
_UNUSED_DRIVERS = (
    *("gpu/drm/amd", "gpu/drm/i915", "gpu/drm/nouveau", "gpu/drm/radeon", "media", "net/wireless", "staging"),
    *("isdn", "bluetooth", "iio"),
)
_ENABLED = ("systemd-networkd.service", "ssh.service", "nvidia-stand-in.service")
_DISABLED = ("systemd-resolved.service", "systemd-timesyncd.service")
# What starts by the clock would change the machine between two looks at it.
_MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("e2scrub_reap.service", "getty@tty1.service", "systemd-networkd-wait-online.service"),
    *("systemd-tmpfiles-clean.timer", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service"),
)
# What only a running system can do: a disk for models, a swap file without holes, GRUB's own menu and an initial file
# system that it is itself booted from. After these commands the machine boots once more, and is kept as it is then.
FIRST_BOOT = (
    "mkfs.ext4 -q -L ai-data /dev/vdb && mkdir -p /mnt/ai-data",
    "echo 'LABEL=ai-data /mnt/ai-data ext4 defaults,nofail 0 2' >> /etc/fstab",
    "fallocate -l 64M /swapfile && chmod 600 /swapfile && mkswap -q /swapfile",
    "echo '/swapfile none swap sw 0 0' >> /etc/fstab && systemctl daemon-reload",
    "systemctl start swap.target local-fs.target",
    "grub-install /dev/vda && update-grub",
    "update-initramfs -u",
    "fstrim -a; sync",
)


def cache() -> Path:
    """Where images, packages and saved machines are kept."""
    chosen = os.environ.get("AI_INFRA_LAB_CACHE")
    if chosen:
        return Path(chosen).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ai_infra.workstation" / "lab"


def recipe(*more: str) -> str:
    """The name of what this recipe makes: a hash of everything that decides about it."""
    found = hashlib.sha256("\0".join(more).encode())
    sources = [Path(__file__), *sorted(HERE.glob("guest/**/*")), *sorted(fake_nvml.HERE.glob("**/*"))]
    for path in sources:
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("test_"):
            found.update(f"{path.relative_to(HERE.parent)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def run(*command: str | Path) -> str:
    """The output of a command; its last words in the error when it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(map(str, command))}: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def build() -> Path:
    """The folder with the image root.qcow2 and the SSH key of its root account."""
    return once(cache() / f"image-{recipe()}", _make)


def once(place: Path, make: Callable[[Path], None]) -> Path:
    """A folder of the cache, made when it is missing. Who comes second waits for the first."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f".{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=cache(), prefix=".new-") as folder:
                fresh = Path(folder) / "made"
                fresh.mkdir()
                make(fresh)
                fresh.rename(place)
    return place


def _make(folder: Path) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", folder / "key")
    with tempfile.TemporaryDirectory(dir=_roomy_folder(), prefix="lab-image-") as name:
        tree, disk = Path(name) / "root", Path(name) / "disk"
        _install_packages(tree)
        _configure(tree, folder / "key.pub")
        _write_disk(tree, disk)
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, folder / "root.qcow2")


def _roomy_folder() -> Path:
    """Memory where there is plenty of it: unpacking packages onto a disk takes three times as long."""
    memory = Path("/dev/shm")  # noqa: S108 below it is a folder of our own
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 6 << 30 else cache()


def _install_packages(tree: Path) -> None:
    listed = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()
    mirrors = [line for line in listed if line.rstrip("/").endswith("/debian")]
    mirror = mirrors[0] if mirrors else "http://deb.debian.org/debian"
    packages = cache() / "packages"
    packages.mkdir(exist_ok=True)
    left_out = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/lib/modules/*/kernel/sound/*"]
    left_out += [f"/lib/modules/*/kernel/drivers/{driver}/*" for driver in _UNUSED_DRIVERS]
    # A list of modules makes an initial file system in seconds, and a small one.
    initramfs = (
        'mkdir -p "$1/etc/initramfs-tools/conf.d";'
        'printf "MODULES=list\\nCOMPRESS=lz4\\nCOMPRESSLEVEL=1\\n" > "$1/etc/initramfs-tools/conf.d/lab";'
        'printf "%s\\n" virtio_pci virtio_blk nvme ext4 > "$1/etc/initramfs-tools/modules";'
        'echo "grub-pc grub-pc/install_devices_empty boolean true" | chroot "$1" debconf-set-selections'
    )
    run(
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
        *('--aptopt=Acquire::Languages "none"', "--dpkgopt=force-unsafe-io"),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in left_out),
        *("--skip=download/empty", "--skip=essential/unlink", "--skip=cleanup/apt/cache"),
        '--setup-hook=mkdir -p "$1/var/cache/apt/archives"',
        f"--setup-hook=sync-in {shlex.quote(str(packages))} /var/cache/apt/archives",
        f"--essential-hook={initramfs}",
        f"--customize-hook=sync-out /var/cache/apt/archives {shlex.quote(str(packages))}",
        '--customize-hook=rm -f "$1"/var/cache/apt/archives/*.deb "$1"/var/cache/apt/*.bin',
        *(SUITE, tree),
        *(f"deb [signed-by={KEYRING}] {mirror} {suite} main" for suite in (SUITE, f"{SUITE}-updates")),
    )  # fmt: skip


def _configure(tree: Path, public_key: Path) -> None:
    def put(path: str, content: str, mode: int = 0o644) -> None:
        place = tree / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.write_text(content, encoding="utf-8")
        place.chmod(mode)

    def inside(*command: str) -> None:
        run("chroot", tree, *command)

    for source in sorted((HERE / "guest").glob("**/*")):
        if source.is_file():
            put(str(source.relative_to(HERE / "guest")), source.read_text(encoding="utf-8"))
    put("/etc/fstab", f"UUID={ROOT_UUID} / ext4 noatime,errors=remount-ro 0 1\n")
    put("/root/.ssh/authorized_keys", public_key.read_text(encoding="ascii"), 0o600)
    (tree / "root/.ssh").chmod(0o700)

    _put_stand_in(tree)
    inside("ldconfig")
    inside("systemd-machine-id-setup")
    inside("systemctl", "-q", "enable", *_ENABLED)
    inside("systemctl", "-q", "disable", *_DISABLED)
    inside("systemctl", "-q", "mask", *_MASKED)

    # The first start is by a menu of our own with the command line that update-grub will write: in a folder it
    # cannot see the disk, so the machine itself runs it.
    version = next((tree / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")
    command_line = f"root=UUID={ROOT_UUID} ro console=ttyS0 quiet"
    put("/boot/grub/grub.cfg", "\n".join([
        f"search --no-floppy --fs-uuid --set=root {ROOT_UUID}",
        f"linux /boot/vmlinuz-{version} {command_line}",
        f"initrd /boot/initrd.img-{version}",
        "boot", "",
    ]))  # fmt: skip
    modules = "biosdisk part_msdos ext2 search_fs_uuid"
    inside("sh", "-ec", f"mkdir -p /boot/grub/i386-pc && cp /usr/lib/grub/i386-pc/* /boot/grub/i386-pc/ && "
           f"grub-mkimage -O i386-pc -p '(hd0,msdos1)/boot/grub' -o /boot/grub/i386-pc/core.img {modules}")  # fmt: skip


def _put_stand_in(tree: Path) -> None:
    """The driver's library with the cards. Its program runs at boot: what a reset forgets is forgotten then."""
    machine = fake_nvml.Machine(tree / STAND_IN_STATE.lstrip("/"), CARDS)
    machine.install(tree / "usr/lib/x86_64-linux-gnu", state_as_seen_there=STAND_IN_STATE)
    program = tree / STAND_IN.lstrip("/")
    program.mkdir(parents=True)
    shutil.copy(fake_nvml.HERE / "fake_nvml.py", program)
    shutil.copy(_pynvml(), program)


def _pynvml() -> Path:
    import pynvml  # noqa: PLC0415 only who builds the image needs it

    return Path(pynvml.__file__)


def _write_disk(tree: Path, disk: Path) -> None:
    """A disk with one partition and GRUB, without mounting anything."""
    with disk.open("wb") as handle:
        handle.truncate(DISK_GIB << 30)
    subprocess.run(["sfdisk", "-q", disk], input="label: dos\n2048,,L,*\n", text=True, check=True, capture_output=True)
    options = f"offset={START_OF_ROOT},nodiscard,lazy_itable_init=0,lazy_journal_init=0"
    blocks = f"{((DISK_GIB << 30) - START_OF_ROOT) >> 10}k"
    run("mke2fs", "-q", "-t", "ext4", "-m", "0", "-U", ROOT_UUID, "-E", options, "-d", tree, disk, blocks)
    grub = tree / "boot/grub/i386-pc"
    with disk.open("r+b") as handle:
        handle.write((grub / "boot.img").read_bytes()[:440])
        handle.seek(512)
        handle.write((grub / "core.img").read_bytes())


def main(arguments: Sequence[str]) -> int:
    print(build())  # noqa: T201 its result
    return 0 if not arguments else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
