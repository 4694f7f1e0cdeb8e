# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where firmware menus keep an item: what to look for, by board maker.

Names differ between boards and releases; these are the words that the menus of recent AM5 and LGA1700/1851
boards use, a starting point for the search field that most of these menus have.
"""

from __future__ import annotations

_NAMES = {"asus": "ASUS", "msi": "MSI", "gigabyte": "Gigabyte", "asrock": "ASRock"}

# item -> maker -> menu path and the value to look at
_MENUS: dict[str, dict[str, str]] = {
    "pcie_link": {
        "asus": "Advanced > Onboard Devices Configuration > PCIEX16 Link Mode (Auto), PCIEX16 Bandwidth",
        "msi": "Settings > Advanced > PCIe/PCI Sub-system Settings > PCI_E1 Gen Switch (Auto), Lanes Configuration",
        "gigabyte": "Settings > IO Ports > PCIEX16 Link Speed (Auto), PCIEX16 Bifurcation",
        "asrock": "Advanced > Chipset Configuration > PCIE1 Link Speed (Auto), PCIE1 Bifurcation",
    },
    "resizable_bar": {
        "asus": "Advanced > PCI Subsystem Settings > Re-Size BAR Support (also a button in the top bar)",
        "msi": "Settings > Advanced > PCIe/PCI Sub-system Settings > Re-Size BAR Support",
        "gigabyte": "Settings > IO Ports > Re-Size BAR Support",
        "asrock": "Advanced > Chipset Configuration > Re-Size BAR Support, or C.A.M. (Clever Access Memory)",
    },
    "above_4g": {
        "asus": "Advanced > PCI Subsystem Settings > Above 4G Decoding; Boot > CSM (Disabled)",
        "msi": "Settings > Advanced > PCIe/PCI Sub-system Settings > Above 4G memory; Boot mode (UEFI)",
        "gigabyte": "Settings > IO Ports > Above 4G Decoding; Boot > CSM Support (Disabled)",
        "asrock": "Advanced > Chipset Configuration > Above 4G Decoding; Boot > CSM (Disabled)",
    },
    "memory_speed": {
        "asus": "Ai Tweaker > Ai Overclock Tuner (EXPO I, EXPO II, XMP, DOCP)",
        "msi": "OC > Extreme Memory Profile (XMP, EXPO), Memory Try It!",
        "gigabyte": "Tweaker > Extreme Memory Profile (XMP, EXPO)",
        "asrock": "OC Tweaker > DRAM Profile Configuration (XMP, EXPO)",
    },
    "boost_override": {
        "asus": "Advanced > AMD Overclocking > Precision Boost Overdrive; Intel: Asus MultiCore Enhancement",
        "msi": "OC > AMD Overclocking > Precision Boost Overdrive; Intel: Enhanced Turbo",
        "gigabyte": "Tweaker > Precision Boost Overdrive; Intel: Enhanced Multi-Core Performance",
        "asrock": "Advanced > AMD Overclocking > Precision Boost Overdrive; Intel: Multi Core Enhancement",
    },
    "c_states": {
        "asus": "Advanced > AMD CBS > Global C-state Control; Intel: Advanced > CPU Configuration > CPU C-states",
        "msi": "OC > Advanced CPU Configuration > Global C-state Control; Intel: Intel C-State",
        "gigabyte": "Settings > AMD CBS > Global C-state Control; Intel: Tweaker > C-States Control",
        "asrock": "Advanced > AMD CBS > Global C-state Control; Intel: CPU Configuration > CPU C States Support",
    },
    "smt": {
        "asus": "Advanced > AMD CBS > CPU Common Options > SMT Control; Intel: CPU Configuration > Hyper-Threading",
        "msi": "OC > Advanced CPU Configuration > SMT Control (Simultaneous Multi-Threading); Intel: Hyper-Threading",
        "gigabyte": "Tweaker > Advanced CPU Settings > SMT Mode; Intel: Hyper-Threading Technology",
        "asrock": "Advanced > CPU Configuration > SMT Mode; Intel: Intel Hyper Threading Technology",
    },
    "virtualization": {
        "asus": "Advanced > CPU Configuration > SVM Mode; Intel: Intel (VMX) Virtualization Technology",
        "msi": "OC > Advanced CPU Configuration > SVM Mode; Intel: Intel Virtualization Tech",
        "gigabyte": "Tweaker > Advanced CPU Settings > SVM Mode; Intel: VT-x",
        "asrock": "Advanced > CPU Configuration > SVM Mode; Intel: Intel Virtualization Technology",
    },
    "iommu": {
        "asus": "Advanced > AMD CBS > NBIO Common Options > IOMMU; Intel: System Agent (SA) Configuration > VT-d",
        "msi": "Settings > Advanced > AMD CBS > IOMMU; Intel: OC > Advanced CPU Configuration > Intel VT-D Tech",
        "gigabyte": "Settings > Miscellaneous > IOMMU; Intel: VT-d",
        "asrock": "Advanced > AMD CBS > NBIO Common Options > IOMMU; Intel: Chipset Configuration > VT-d",
    },
    "secure_boot": {
        "asus": "Boot > Secure Boot > OS Type (Other OS switches it off), Key Management",
        "msi": "Settings > Security > Secure Boot",
        "gigabyte": "Boot > Secure Boot",
        "asrock": "Security > Secure Boot",
    },
    "cores": {
        "asus": "Advanced > AMD CBS > CPU Common Options > CCD Control, Core Control; Intel: Active Cores",
        "msi": "OC > Advanced CPU Configuration > Downcore Control; Intel: Active P-Cores, Active E-Cores",
        "gigabyte": "Tweaker > Advanced CPU Settings > Downcore Control; Intel: No. of CPU Cores Enabled",
        "asrock": "Advanced > AMD CBS > CPU Common Options > Downcore Control; Intel: Active Processor Cores",
    },
}


def menu(item: str, vendor: str) -> list[str]:
    """Menu paths of the board's maker; of all four where the maker is another or unknown."""
    known = _MENUS.get(item, {})
    makers = [vendor] if vendor in known else list(known)
    return [f"{_NAMES[maker]}: {known[maker]}" for maker in makers]
