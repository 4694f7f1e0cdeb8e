# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the lab's machine is made of: the arguments of QEMU, and an ACPI table for frequency and idle states."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

# One byte of read and write memory per core that nothing else in this machine uses: the page registers of the
# DMA controller (i8257). acpi-cpufreq writes the wished frequency there and reads it back.
_PAGE_REGISTERS = (0x81, 0x82, 0x83, 0x87, 0x89, 0x8A, 0x8B, 0x8F)
_CPU_MODEL = "vendor=GenuineIntel,family=6,model=85,stepping=7,model-id=Lab TCG CPU,xlevel=0x80000008"
# Without MONITOR off-lined CPUs halt; with it they would spin and slow all others down.
_CPU_FEATURES = "-svm,-la57,-monitor"

_PROCESSOR = r"""
External (\_SB.CPUS.C{cpu:03X}, DeviceObj)
Scope (\_SB.CPUS.C{cpu:03X}) {{
  Name (_PCT, Package() {{
    ResourceTemplate() {{ Register(SystemIO, 8, 0, {port:#x}, 1) }},
    ResourceTemplate() {{ Register(SystemIO, 8, 0, {port:#x}, 1) }} }})
  Name (_PPC, 0)
  Name (_PSS, Package() {{
    Package() {{4500, 170000, 10, 10, 0, 0}}, Package() {{3600, 120000, 10, 10, 1, 1}},
    Package() {{2400,  80000, 10, 10, 2, 2}}, Package() {{1200,  40000, 10, 10, 3, 3}} }})
  Name (_CST, Package() {{ 3,
    Package() {{ ResourceTemplate() {{ Register(FFixedHW, 1, 2, 1, 1) }}, 1,   1, 1000 }},
    Package() {{ ResourceTemplate() {{ Register(FFixedHW, 1, 2, 1, 1) }}, 1,  50,  500 }},
    Package() {{ ResourceTemplate() {{ Register(FFixedHW, 1, 2, 1, 1) }}, 1, 200,  100 }} }})
}}
"""


@dataclass(frozen=True)
class Hardware:
    """One machine. An emulated NVMe disk cannot be saved and restored, so it is not the root disk by default."""

    cpus: int = 4
    threads: int = 2
    nodes: int = 2
    memory_mib: int = 3072
    root: str = "virtio"  # or "nvme"

    def arguments(self, folder: Path) -> list[str]:
        """Arguments of QEMU for a machine whose disks root, data0 and data1 lie in the folder."""
        table = folder / "cpu.aml"
        if not table.exists():
            _compile_table(table, self.cpus, self.threads)
        return [
            # Without a mouse: whether the kernel finds one in time depends on how busy the host is.
            *("-accel", "tcg,thread=multi", "-machine", "q35,i8042=off", "-cpu", f"max,{_CPU_MODEL},{_CPU_FEATURES}"),
            *("-nodefaults", "-no-user-config", "-display", "none"),
            *("-acpitable", f"file={table}"),
            *self._processors(),
            *self._disks(folder),
            *_OTHER_DEVICES,
            *_FIRMWARE,
        ]

    def _processors(self) -> list[str]:
        cores = self.cpus // self.threads
        made = ["-smp", f"{self.cpus},sockets=1,cores={cores},threads={self.threads}", "-m", str(self.memory_mib)]
        share = self.cpus // self.nodes
        for node in range(self.nodes):
            cpus = f"{node * share}-{(node + 1) * share - 1}"
            made += ["-object", f"memory-backend-ram,id=ram{node},size={self.memory_mib // self.nodes}M"]
            made += ["-numa", f"node,nodeid={node},memdev=ram{node},cpus={cpus}"]
        return [*made, *(("-numa", "dist,src=0,dst=1,val=21") if self.nodes > 1 else ())]

    def _disks(self, folder: Path) -> list[str]:
        made = []
        for disk in DISKS:
            # Nothing is flushed to the host's disk: the host does not lose power, the guest does.
            drive = f"file={folder / disk}.qcow2,if=none,id={disk},format=qcow2,cache=unsafe,discard=unmap"
            made += ["-drive", drive]
        made += ["-device", "pcie-root-port,id=rp1,chassis=1,slot=1,x-speed=16,x-width=4"]
        made += ["-device", "pcie-root-port,id=rp3,chassis=3,slot=3,x-speed=8,x-width=4"]
        if self.root == "nvme":
            made += ["-device", f"nvme,drive=root,serial=LABNVME0,bus=rp1,max_ioqpairs={self.cpus},bootindex=1"]
            made += ["-device", "nvme,drive=data0,serial=LABNVME1,bus=rp3,max_ioqpairs=2"]
        else:
            made += ["-device", f"virtio-blk-pci,drive=root,num-queues={self.cpus},bootindex=1,bus=rp1"]
            made += ["-device", "virtio-blk-pci,drive=data0,num-queues=2,bus=rp3"]
        made += ["-device", "virtio-scsi-pci,id=sc0,num_queues=4"]
        return [*made, "-device", "scsi-hd,drive=data1,bus=sc0.0,rotation_rate=7200,serial=LABHDD0"]


DISKS = ("root", "data0", "data1")

_OTHER_DEVICES = (
    # In place of a GPU: a device with 32 GiB of memory above 4 GiB behind a port of sixteen lanes.
    *("-device", "pcie-root-port,id=rp2,chassis=2,slot=2,x-speed=16,x-width=16"),
    *("-device", "pci-testdev,membar=32G,bus=rp2"),
    *("-device", "virtio-net-pci,netdev=net0,romfile="),
    # A network card whose interrupts may be moved.
    *("-netdev", "user,id=net1,restrict=on,net=10.0.3.0/24", "-device", "vmxnet3,netdev=net1,romfile="),
    *("-device", "virtio-rng-pci", "-device", "ati-vga,romfile=", "-device", "i6300esb"),
)

_FIRMWARE = (
    *("-smbios", "type=0,vendor=Lab BIOS Inc.,version=F21,date=03/15/2024,release=5.27"),
    *("-smbios", "type=1,manufacturer=Lab,product=AI Workstation,version=1.0,serial=LAB0001"),
    *("-smbios", "type=2,manufacturer=ASRock Rack,product=TRX50 LAB,version=1.02,serial=BB01"),
    *("-smbios", "type=3,manufacturer=Lab,version=Tower,serial=CH01"),
    *("-smbios", "type=4,sock_pfx=SP5,manufacturer=Lab Micro,version=Lab TCG CPU,max-speed=4500,current-speed=3600"),
    *("-smbios", "type=17,loc_pfx=DIMM_A,bank=BANK 0,manufacturer=LabRAM,part=LR-5600-16G,serial=D001,speed=5600"),
)

WORKSTATION = Hardware()


def _compile_table(table: Path, cpus: int, threads: int) -> None:
    """Frequencies for acpi-cpufreq and three idle states, for the processors as QEMU names them."""
    body = "".join(
        _PROCESSOR.format(cpu=cpu, port=_PAGE_REGISTERS[cpu // threads % len(_PAGE_REGISTERS)]) for cpu in range(cpus)
    )
    source = table.with_suffix(".asl")
    source.write_text(f'DefinitionBlock ("", "SSDT", 2, "LABVM ", "CPUPM   ", 1) {{{body}}}\n', encoding="ascii")
    subprocess.run(["iasl", "-p", table.with_suffix(""), source], check=True, capture_output=True)
