# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The NVML door, through the real nvidia-ml-py on the stand-in driver."""

from __future__ import annotations

import ast
import os
import sys
import tempfile
from pathlib import Path

import fake_nvml
import pynvml
import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors import nvml_binding, nvml_properties
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml import Nvml, normal_pci, open_nvml
from ansible_collections.ai_infra.workstation.plugins.module_utils.doors.nvml_binding import NvmlError
from hypothesis import given
from hypothesis import strategies as st
from nvml_child import NOBODY, in_child

SOURCE = Path(pynvml.__file__).read_bytes()
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the driver lets only root set something")


@pytest.fixture
def machine():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # noqa: S103 -- pytest's own folders are closed to other users, who ask the driver too
        with fake_nvml.Machine(f"{folder}/gpu", ["rtx5090", "rtx3090"]) as made:
            yield made


def door(piece, source=None):
    """A function for in_child(): open the door, run the piece on it, close it."""

    def run():
        nvml = open_nvml(source)
        try:
            return piece(nvml)
        finally:
            nvml.close()

    return run


def test_devices_by_what_stays_and_by_what_people_call_them(machine):
    found = in_child(machine, door(lambda nvml: nvml.devices()))
    assert [(gpu.index, gpu.uuid, gpu.pci) for gpu in found] == [
        (0, machine.uuid(0), "0000:01:00.0"),
        (1, machine.uuid(1), "0000:02:00.0"),
    ]
    assert [(gpu.name, gpu.architecture, gpu.brand, gpu.device_id, gpu.problem) for gpu in found] == [
        ("NVIDIA GeForce RTX 5090", "blackwell", "geforce", "10de:2b85", ""),
        ("NVIDIA GeForce RTX 3090", "ampere", "geforce", "10de:2204", ""),
    ]


def test_binding_that_comes_with_the_call_is_used_and_stays_in_memory(machine, tmp_path):
    def piece(nvml):
        name = nvml._binding.__name__
        return name, getattr(nvml._binding, "__file__", None), "pynvml" in sys.modules, len(nvml.devices())

    before = sorted(tmp_path.rglob("*"))
    marked = nvml_binding.pack(SOURCE + b"\nMARK = 1\n")
    name, file, _loaded, count = in_child(machine, door(piece, marked))
    assert name.startswith("_ai_workstation_pynvml_")
    assert file is None
    assert count == 2
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "packed",
    ["not base64!", nvml_binding.pack(b"def broken(:"), nvml_binding.pack(b"raise NameError('x')"), "QUJD"],
)
def test_a_damaged_binding_is_a_state_with_a_reason(machine, packed):
    state, reason = in_child(machine, door(lambda nvml: (nvml.state, nvml.reason), packed))
    assert state == "no_binding"
    assert "cannot be loaded" in reason
    assert "\n" not in reason


def test_no_binding_anywhere_says_what_to_install(machine):
    def piece():
        sys.modules["pynvml"] = None
        nvml = open_nvml(None)
        return nvml.state, nvml.reason

    state, reason = in_child(machine, piece)
    assert state == "no_binding"
    assert "pip install nvidia-ml-py on the controller" in reason


def test_without_a_driver_library(monkeypatch):
    monkeypatch.setattr(nvml_binding, "LIBRARY", "libnvidia-ml-of-no-machine.so.1")
    nvml = open_nvml(None)
    assert (nvml.state, nvml.devices(), nvml.calls) == ("no_library", [], 0)
    assert "install the NVIDIA driver" in nvml.reason
    assert nvml.versions() == {"driver": None, "nvml": None, "cuda": None}
    nvml.close()


@pytest.mark.parametrize(
    ("code", "state", "word"),
    [
        (9, "not_loaded", "modprobe nvidia"),
        (18, "mismatch", "reboot"),
        (4, "no_permission", "root"),
        (12, "no_library", "install"),
        (999, "unknown", "Xid"),
        (77, "unknown", "does not know"),
    ],
)
def test_init_failure_is_a_state_with_what_to_do(machine, code, state, word):
    machine.set(init_rc=code)
    found = in_child(machine, door(lambda nvml: (nvml.state, nvml.reason, nvml.devices())))
    assert found[0] == state
    assert word in found[1]
    assert found[2] == []


def test_one_init_and_one_shutdown_for_a_whole_call(machine):
    def piece(nvml):
        for gpu in nvml.devices():
            nvml.settings(gpu.uuid)
            nvml.hardware(gpu.uuid)
            nvml.read(gpu.uuid, "power_limit_mw")
        return nvml.calls

    calls = in_child(machine, door(piece))
    trace = machine.trace()
    names = [call.function for call in trace]
    assert names.count("nvmlInitWithFlags") == names.count("nvmlShutdown") == 1
    assert calls >= 60
    assert not [name for name in names if "Set" in name or "Reset" in name]


def test_settings_are_none_where_the_card_has_none(machine):
    found = in_child(machine, door(lambda nvml: nvml.settings(machine.uuid(0))))
    assert found["ecc"] is None
    assert found["mig"] is None
    assert found["application_clocks"] is None
    assert found["power_range_mw"] == [400000, 600000]
    assert found.errors == {}


def test_a_getter_that_fails_is_told_apart_from_one_that_is_missing(machine):
    machine.fault(fn="nvmlDeviceGetComputeMode", rc=10)
    found = in_child(machine, door(lambda nvml: nvml.settings(machine.uuid(0))))
    assert found["compute_mode"] is None
    assert "NVML_ERROR_TIMEOUT (10)" in found.errors["compute_mode"]


def test_hardware_of_a_card(machine):
    found = in_child(machine, door(lambda nvml: nvml.hardware(machine.uuid(1))))
    assert found["bar1_bytes"][0] == 256 << 20
    assert (found["pcie_generation_card"], found["pcie_width_max"]) == (4, 16)


def test_clocks_the_card_lists(machine):
    uuid = machine.uuid(0)
    memory, low, every = in_child(
        machine,
        door(lambda nvml: (nvml.memory_clocks(uuid), nvml.graphics_clocks(uuid, 405), nvml.graphics_clocks(uuid))),
    )
    assert memory == [405, 810, 7001, 13801, 14001]
    assert max(low) == 885
    assert (every[0], every[-1], len(every)) == (180, 3090, 389)


@needs_root
@pytest.mark.parametrize(
    ("name", "value", "back"),
    [
        ("persistence", "on", "off"),
        ("power_limit_mw", 450000, 575000),
        ("compute_mode", "exclusive_process", "default"),
        ("compute_mode", "prohibited", "default"),
    ],
)
def test_a_property_reads_back_what_was_written(machine, name, value, back):
    uuid = machine.uuid(0)

    def piece(nvml):
        seen = [nvml.read(uuid, name)]
        for wanted in (value, back):
            nvml.write(uuid, name, wanted)
            seen.append(nvml.read(uuid, name))
        return seen

    assert in_child(machine, door(piece)) == [back, value, back]


@needs_root
@pytest.mark.parametrize("kind", ["gpu", "memory"])
def test_locks_have_no_getter_and_reset_takes_them_off(machine, kind):
    uuid, name = machine.uuid(1), f"{kind}_locked_clocks"
    value = "210-1800" if kind == "gpu" else "5001-9501"

    def piece(nvml):
        nvml.write(uuid, "persistence", "on")
        nvml.write(uuid, name, value)
        seen = nvml.read(uuid, name)
        nvml.write(uuid, name, "reset")
        return seen

    assert in_child(machine, door(piece)) is None
    setters = [call.function for call in machine.trace() if "Locked" in call.function]
    title = "Gpu" if kind == "gpu" else "Memory"
    assert setters == [f"nvmlDeviceSet{title}LockedClocks", f"nvmlDeviceReset{title}LockedClocks"]


@needs_root
@pytest.mark.parametrize("code", sorted(nvml_binding._ERRORS))
def test_every_error_code_becomes_an_oserror_with_name_and_advice(machine, code):
    machine.fault(fn="nvmlDeviceSetPersistenceMode", rc=code)
    with pytest.raises(NvmlError) as caught:
        in_child(machine, door(lambda nvml: nvml.write(machine.uuid(0), "persistence", "on")))
    error = caught.value
    constant = next(key for key, value in vars(pynvml).items() if key.startswith("NVML_ERROR_") and value == code)
    assert isinstance(error, OSError)
    assert error.errno
    assert (error.code, error.name) == (code, constant)
    assert error.strerror.startswith(f"nvmlDeviceSetPersistenceMode: {constant} ({code}): ")
    assert "\n" not in error.strerror


def test_error_table_is_complete():
    codes = {value for key, value in vars(pynvml).items() if key.startswith("NVML_ERROR_")}
    assert codes == set(nvml_binding._ERRORS)


@needs_root
def test_without_root_the_driver_refuses_and_the_message_says_so(machine):
    with pytest.raises(NvmlError, match=r"NVML_ERROR_NO_PERMISSION \(4\): run as root"):
        in_child(machine, door(lambda nvml: nvml.write(machine.uuid(0), "persistence", "on")), uid=NOBODY)


def test_a_lost_gpu_does_not_hide_the_others(machine):
    machine.lose(0)

    def piece(nvml):
        found = nvml.devices()
        return found, nvml.settings(machine.uuid(1))["power_limit_mw"]

    found, limit = in_child(machine, door(piece))
    assert "NVML_ERROR_GPU_IS_LOST (15)" in found[0].problem
    assert (found[1].uuid, found[1].problem, limit) == (machine.uuid(1), "", 350000)


def test_a_lost_gpu_is_an_error_not_a_card_without_features(machine):
    def piece(nvml):
        nvml.devices()
        machine.lose(0)
        return nvml.settings(machine.uuid(0))

    with pytest.raises(NvmlError) as caught:
        in_child(machine, door(piece))
    assert caught.value.code == 15


class _MigAnswers:
    """A binding whose SetMigMode succeeds while the activation does not."""

    NVMLError = pynvml.NVMLError

    def __init__(self, status) -> None:
        self.status = status

    def nvmlDeviceSetMigMode(self, _handle, _mode):  # noqa: N802 -- the name of NVML
        return self.status


@pytest.mark.parametrize(("status", "fails"), [(0, False), (19, False), (16, False), (3, True), (999, True)])
def test_the_activation_status_of_mig_is_checked_too(status, fails):
    nvml = Nvml(_MigAnswers(status))
    nvml._handles["GPU-x"] = object()
    if fails:
        with pytest.raises(NvmlError, match="activation"):
            nvml.write("GPU-x", "mig", "on")
    else:
        nvml.write("GPU-x", "mig", "on")


def _unchecked_in_pynvml():
    """Functions of the installed pynvml that call into the driver and never look at its answer."""
    found = set()
    for node in ast.parse(SOURCE).body:
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("nvml"):
            continue
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        calls_driver = "_nvmlGetFunctionPointer" in names
        if calls_driver and not names & {"_nvmlCheckReturn", "NVMLError", "nvmlErrorString"}:
            found.add(node.name)
    return found - {"nvmlErrorString"}


def test_the_list_of_unchecked_functions_is_what_the_installed_pynvml_has():
    assert _unchecked_in_pynvml() <= nvml_binding.UNCHECKED


@pytest.mark.parametrize("function", sorted(nvml_binding.UNCHECKED))
def test_an_unchecked_function_cannot_be_called(function):
    with pytest.raises(ValueError, match="hides the driver's answer"):
        Nvml(pynvml).call(function)


def test_every_property_can_be_read_from_settings():
    assert {"persistence", "power_limit_mw", "compute_mode", "ecc", "mig", "application_clocks"} <= set(
        nvml_properties.SETTINGS
    )


@given(st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7), st.sampled_from([4, 8]))
def test_a_pci_address_has_one_form(domain, bus, device, function, width):
    text = f"{domain:0{width}X}:{bus:02X}:{device:02x}.{function}"
    assert normal_pci(text) == f"{domain:04x}:{bus:02x}:{device:02x}.{function}"
    assert normal_pci(normal_pci(text)) == normal_pci(text)


@pytest.mark.parametrize("text", ["", "0", "GPU-1", "01:00", "0000:01:00.8", "zz:00.0"])
def test_what_is_no_pci_address(text):
    expected = "0000:01:00.0" if text == "01:00" else None
    assert normal_pci(text) == expected
