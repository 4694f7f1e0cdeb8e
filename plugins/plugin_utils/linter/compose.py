# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Compose files: what is wrong with one service, and between services."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import yaml

from . import nodes
from .compose_gpu import check_gpu
from .compose_ports import check_health, check_ports, duplicates
from .compose_service import Service, read_service
from .context import Context, pinned
from .environment import check_environment
from .findings import Finding
from .flags import check_flags
from .knowledge import known
from .sysctl import canonical, check_setting
from .versions import near

# What runc lets a container have of its own; everything else is the host's.
_NAMESPACED = re.compile(r"(net\..+|kernel\.(msg.+|sem|shm.+)|fs\.mqueue\..+)")
# Keys under net. that only the first network namespace has.
_HOST_NET = re.compile(r"net\.core\.([rw]mem_(max|default)|optmem_max|netdev_.*|bpf_.*|dev_weight.*)")
_CACHE_VARIABLES = (
    "HF_HOME",
    "VLLM_CACHE_ROOT",
    "TRITON_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "XDG_CACHE_HOME",
    "CUDA_CACHE_PATH",
)


def looks_like_compose(name: str, root: yaml.Node | None) -> bool:
    """Whether a YAML file is a compose file: by its name, or by services with an image or a build."""
    if re.search(r"(^|[.-])compose([.-].*)?\.ya?ml$", name):
        return True
    services = nodes.entries(nodes.get(root, "services"))
    return any({"image", "build"} & nodes.entries(value).keys() for _key, value in services.values())


def check_compose(text: str, context: Context) -> list[Finding]:
    """Everything that is wrong in a compose file. A variable that it gives to a container is for the program there,
    also where its value comes from a variable of the same name."""
    context = replace(context, own=frozenset())
    try:
        roots = nodes.documents(text)
    except nodes.BrokenYamlError as error:
        return [context.finding(error.line, "file-unreadable", context.file, f"no YAML: {error}")]
    return [finding for root in roots for finding in _document(root, text, context)]


def _document(root: yaml.Node, text: str, context: Context) -> Iterator[Finding]:
    if not isinstance(root, yaml.MappingNode):
        yield context.finding(nodes.line(root), "file-unreadable", context.file, "no mapping of services")
        return
    top = nodes.entries(root)
    if "version" in top:
        message = "compose ignores it with a warning; leave it out"
        yield context.finding(nodes.line(top["version"][0]), "compose-version", "version", message)
    services = []
    for name, (key, value) in nodes.entries(nodes.get(root, "services")).items():
        if not isinstance(value, yaml.MappingNode):
            message = "a service is a mapping"
            yield context.finding(nodes.line(key), "file-unreadable", f"services.{name}", message)
            continue
        service = read_service(name, value, text.splitlines())
        services.append(service)
        yield from check_service(service, context)
    yield from duplicates(services, context)


def check_service(service: Service, context: Context) -> Iterator[Finding]:
    """Everything that is wrong with one service alone."""
    context = context.of(service.engine, service.version)
    yield from _keys(service, context)
    yield from _quotes(service, context)
    yield from check_environment(service.environment, context, service.flags)
    yield from check_flags(service.flags, context) if service.engine else ()
    yield from _image(service, context)
    yield from _sysctls(service, context)
    yield from check_ports(service, context)
    yield from check_health(service, context)
    yield from check_gpu(service, context)
    yield from _read_only(service, context)
    yield from _memory(service, context)
    yield from _shared_memory(service, context)
    yield from _numactl(service, context)


def _keys(service: Service, context: Context) -> Iterator[Finding]:
    for name, (key, _value) in service.keys.items():
        record = known("compose_key").get(name)
        if record is None and not name.startswith("x-"):
            like = near(name, known("compose_key"))
            text = f"compose has no such key and refuses the file{f'; did you mean {like}?' if like else ''}"
            yield context.finding(nodes.line(key), "compose-unknown", f"{service.name}.{name}", text, like)
        elif record and record.verdict != "real":
            yield context.judged(nodes.line(key), record, f"{service.name}.{name}")


def _quotes(service: Service, context: Context) -> Iterator[Finding]:
    if not isinstance(service.node("environment"), yaml.SequenceNode):
        return
    for variable in service.environment:
        value = service.written.get(variable.name) or ""
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            text = f"compose keeps the quotes: the value is {value}"
            yield context.finding(
                variable.line, "env-quoted", variable.name, text, f"the map form, {variable.name}: {value}"
            )


def _image(service: Service, context: Context) -> Iterator[Finding]:
    if service.image and "build" not in service.keys and not pinned(service.image):
        text = "names no version; the next pull is another engine, with other flags and variables"
        yield context.finding(service.line("image"), "image-tag", service.image, text, "a version or a digest")


def _sysctls(service: Service, context: Context) -> Iterator[Finding]:
    node = service.node("sysctls")
    pairs = [(key, nodes.scalar(value), nodes.line(mark)) for key, (mark, value) in nodes.entries(node).items()]
    if not pairs:
        pairs = [(*text.partition("=")[::2], number) for text, number in nodes.scalars(node)]
    for key, value, number in pairs:
        name = canonical(key.strip())
        reason = _sysctl_reason(name, service)
        if reason:
            yield context.finding(
                number, "compose-sysctl", name, f"{reason}, and the container does not start", "the host's sysctl"
            )
        elif value is not None:
            yield from check_setting(name, value.strip(), number, context)


def _sysctl_reason(name: str, service: Service) -> str:
    if not _NAMESPACED.fullmatch(name):
        return "it is not in a namespace of the container"
    if name.startswith("net.") and service.text("network_mode") == "host":
        return "network_mode: host has no network namespace of its own"
    if not name.startswith("net.") and service.text("ipc") == "host":
        return "ipc: host has no namespace of its own for it"
    return "only the host's network namespace has it" if _HOST_NET.fullmatch(name) else ""


def _read_only(service: Service, context: Context) -> Iterator[Finding]:
    tmp = service.tmpfs.get("/tmp")  # noqa: S108 a path inside of the container
    moved = any(variable.name == "TMPDIR" for variable in service.environment)
    if tmp is not None and not moved and service.engine == "vllm" and "exec" not in tmp[0].split(","):
        text = "Docker mounts a tmpfs noexec, and libraries that Triton or Inductor build there cannot be loaded"
        yield context.finding(tmp[1], "compose-tmp-noexec", f"{service.name}.tmpfs", text, "exec among its options")
    if not nodes.is_true(service.node("read_only")):
        return
    writable = {*service.tmpfs, *service.writable}
    line = service.line("read_only")
    if "/tmp" not in writable and not moved:  # noqa: S108
        text = "read_only without a writable /tmp"
        yield context.finding(
            line, "compose-read-only", f"{service.name}.read_only", text, "a tmpfs on /tmp, or TMPDIR on a volume"
        )
    if service.engine == "vllm" and not _has_cache(service, writable):
        text = "vLLM writes ~/.cache, ~/.triton and ~/.nv, and none of its caches is on a writable mount"
        yield context.finding(
            line, "compose-read-only", f"{service.name}.read_only", text, "a volume and HOME, or HF_HOME and the like"
        )


def _has_cache(service: Service, writable: set[str]) -> bool:
    homes = [variable for variable in service.environment if variable.name in (*_CACHE_VARIABLES, "HOME")]
    if any(one.value is None or _below(one.value, writable) for one in homes):
        return True
    return any(re.search(r"cache|\.nv|\.triton|^/root$|^/home/", path) for path in writable - {"/tmp"})  # noqa: S108


def _below(path: str, folders: set[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _memory(service: Service, context: Context) -> Iterator[Finding]:
    locks = _locks(service)
    limit = service.node("mem_limit") or nodes.get(service.root, "deploy", "resources", "limits", "memory")
    memlock = nodes.get(service.root, "ulimits", "memlock")
    if locks and limit is None:
        text = "mlock without a memory limit: locked pages cannot be reclaimed"
        yield context.finding(service.first, "compose-mlock", service.name, text, "mem_limit above the model's size")
    if locks and memlock is None:
        text = "mlock without ulimits.memlock: only 8 MiB are locked and the engine just warns"
        yield context.finding(service.first, "compose-mlock", service.name, text, "ulimits: {memlock: -1}")
    if memlock is not None and not locks:
        text = "the service locks nothing; pinned CUDA memory does not need it"
        yield context.finding(nodes.line(memlock), "compose-memlock", f"{service.name}.ulimits.memlock", text)


def _locks(service: Service) -> bool:
    """Whether the engine is told to lock its memory."""
    flags = {flag.name: flag.value or "" for flag in service.flags}
    values = {variable.name: (variable.value or "").lower() for variable in service.environment}
    modes = flags.get("--load-mode", "") + flags.get("-lm", "") + values.get("LLAMA_ARG_LOAD_MODE", "")
    return "--mlock" in flags or "mlock" in modes or values.get("LLAMA_ARG_MLOCK") in ("1", "true", "on", "enabled")


def _shared_memory(service: Service, context: Context) -> Iterator[Finding]:
    shared = service.node("shm_size") is not None or service.text("ipc") or "/dev/shm" in service.tmpfs  # noqa: S108
    if (
        service.engine == "vllm"
        and not shared
        and {"--tensor-parallel-size", "-tp"} & {one.name for one in service.flags}
    ):
        text = "its processes meet in /dev/shm, which has 64 MB"
        yield context.finding(service.first, "compose-shared-memory", service.name, text, "shm_size or ipc: host")


def _numactl(service: Service, context: Context) -> Iterator[Finding]:
    if "SYS_NICE" in {text for text, _line in nodes.scalars(service.node("cap_add"))}:
        return
    for text, number in service.words:
        if text.rsplit("/", 1)[-1] == "numactl":
            message = "Docker's seccomp profile refuses its calls without SYS_NICE"
            yield context.finding(number, "compose-cap-numa", "numactl", message, "cpuset")
