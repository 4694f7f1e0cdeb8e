# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is declared of a service: parsed, with the defaults of its engine. Errors name service, field and value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...module_utils.errors import InputError
from ...module_utils.values import choice, cpu_list, cpus, integer, size
from ..fields import known_fields
from . import flags
from .engines import ENGINES, PRESETS, Engine
from .options import Options

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USER = re.compile(r"(\d+)(?::(\d+))?")
_IMAGE = re.compile(r"[A-Za-z0-9][\w./:@-]*")
_DIGEST = re.compile(r"(?:.+@)?sha256:[0-9a-f]{64}")
_UUID = re.compile(r"(?:GPU|MIG)-[A-Za-z0-9-]+")
KEY_FILE = "api_key"  # the name that images know the key of their own API by
IPC = ("private", "shareable", "host")
_HEALTH = ("path", "test", "start_seconds", "interval_seconds", "timeout_seconds", "retries")


@dataclass(frozen=True)
class Health:
    """How the engine asks whether the service is well. test: a command inside; without one, its path over HTTP."""

    path: str = ""
    test: tuple[str, ...] = ()
    start_seconds: int = 60
    interval_seconds: int = 10
    timeout_seconds: int = 40
    retries: int = 3


@dataclass(frozen=True)
class Service:
    """One service, complete."""

    name: str
    engine: str
    kind: Engine
    image: str
    local_image: bool = False
    accept_tag: bool = False
    version: str | None = None
    port: int | None = None
    bind: str = "127.0.0.1"
    container_port: int = 0
    more_ports: Mapping[int, int] = field(default_factory=dict)
    model: str = ""
    model_path: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    api_key: str = ""
    secret_files: tuple[str, ...] = ()
    secret_environment: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()
    caches: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    tmp_size: str = "256m"
    tmp_exec: bool = False
    shm_size: str | None = None
    ipc: str = "private"
    uid: int = 10001
    gid: int = 10001
    memory_bytes: int | None = None
    cpu_set: str = ""
    gpus: tuple[str, ...] = ()
    pids: int = 512
    memlock: str | None = None
    health: Health | None = None
    stop_seconds: int = 30
    mps: bool = False
    mps_thread_percent: int | None = None
    mps_memory: str | None = None
    writable_root: bool = False
    capabilities: tuple[str, ...] = ()
    probe: bool = False

    @property
    def mlock(self) -> bool:
        return bool(self.settings.get("mlock"))

    @property
    def alias(self) -> str:
        """The name under which it offers its model."""
        return str(self.settings.get("alias") or "")

    @property
    def secret_names(self) -> frozenset[str]:
        return frozenset(self.secret_targets.values())

    @property
    def secret_targets(self) -> dict[str, str]:
        """Secrets by the name of their file inside."""
        listed = (name for names in self.secret_environment.values() for name in names if name)
        return {
            **{name: name for name in (*self.secret_files, *listed)},
            **({KEY_FILE: self.api_key} if self.api_key else {}),
        }

    @property
    def health_limit(self) -> int:
        """Seconds within which it must be well: loading, and then as many tries as it has."""
        if self.health is None:
            return 0
        return self.health.start_seconds + self.health.retries * (
            self.health.interval_seconds + self.health.timeout_seconds
        )

    @property
    def probe_options(self) -> dict[str, Any] | None:
        """How the machine asks it for a token; None where it cannot or is not to be asked."""
        if not self.probe or self.port is None:
            return None
        return {"port": self.port, "address": self.bind, "secret": self.api_key, "model": self.alias}


_FIELDS = (
    "name", "engine", "image", "local_image", "accept_tag", "version", "port", "bind", "container_port",
    "more_ports", "model", "settings", "flags", "command", "entrypoint", "environment", "api_key", "secret_files",
    "secret_environment", "files", "volumes", "caches", "data", "tmp_size", "tmp_exec", "shm_size", "ipc", "user",
    "memory", "cpus", "gpus", "pids", "memlock", "health", "stop_seconds", "mps", "mps_thread_percent",
    "mps_memory", "writable_root", "capabilities", "probe",
)  # fmt: skip


def parse(
    services: Any, options: Options, placement: Mapping[str, Any], facts: Mapping[str, Any]
) -> tuple[list[Service], list[str]]:
    """The services in their order, and what is wrong with those that are left out."""
    if not isinstance(services, Sequence) or isinstance(services, str):
        raise InputError(f"service_stack_services: {services!r} is not a list; each is a dictionary with a name")
    found, problems, names = [], [], set()
    for index, entry in enumerate(services):
        try:
            service = _service(f"service_stack_services[{index}]", entry, options, placement, facts)
        except InputError as error:
            problems.append(str(error))
            continue
        if service.name in names:
            problems.append(f"service_stack_services: the name {service.name!r} is there more than once")
            continue
        names.add(service.name)
        found.append(service)
    return found, problems


def _service(
    place: str, entry: Any, options: Options, placement: Mapping[str, Any], facts: Mapping[str, Any]
) -> Service:
    given = entry if isinstance(entry, Mapping) else {}
    name = given.get("name")
    if isinstance(entry, Mapping) and (not isinstance(name, str) or not _NAME.fullmatch(name)):
        raise InputError(f"{place}.name: {name!r} is no name; write lower case letters, digits, - and _")
    where = f"service {name}" if name else place
    wish = known_fields(where, entry, _FIELDS)
    name = str(name)
    preset = PRESETS.get(name, {})
    engine = choice(f"{where}: engine", wish.get("engine", preset.get("engine", "custom")), ENGINES)
    kind = ENGINES[engine]
    placed = (placement.get("services") or {}).get(name) or {}
    uid, gid = _user(where, wish.get("user", "10001:10001"))
    settings = known_fields(f"{where}: settings", wish.get("settings", {}), _settings(engine))
    memory = wish.get("memory", placed.get("memory_limit_bytes"))
    port = wish.get("port", preset.get("port"))
    container_port = integer(f"{where}: container_port", wish.get("container_port", kind.port), 0, 65535)
    model = str(wish.get("model", ""))
    answers = kind.answers and not settings.get("embeddings")
    return Service(
        name=name,
        engine=engine,
        kind=kind,
        image=_image(where, wish.get("image")),
        local_image=_flag(where, wish, "local_image"),
        accept_tag=_flag(where, wish, "accept_tag"),
        version=str(wish["version"]) if "version" in wish else None,
        port=integer(f"{where}: port", port, 1, 65535) if port else None,
        bind=_bind(where, wish.get("bind", "127.0.0.1")),
        container_port=container_port,
        more_ports=_more_ports(where, wish.get("more_ports", {})),
        model=model,
        model_path=_model(where, model, options),
        settings=settings,
        flags=_texts(where, wish, "flags"),
        command=_texts(where, wish, "command"),
        entrypoint=_texts(where, wish, "entrypoint"),
        environment=_environment(where, wish.get("environment", {})),
        api_key=_word(f"{where}: api_key", wish["api_key"]) if "api_key" in wish else "",
        secret_files=tuple(_word(f"{where}: secret_files", one) for one in _texts(where, wish, "secret_files")),
        secret_environment=_secret_environment(where, wish.get("secret_environment", {})),
        files=_files(where, wish.get("files", {})),
        volumes=_texts(where, wish, "volumes"),
        caches=_mounts(f"{where}: caches", wish.get("caches", kind.caches)),
        data=_mounts(f"{where}: data", wish.get("data", kind.data)),
        tmp_size=_size(where, wish, "tmp_size", kind.tmp_size) or "",
        tmp_exec=_flag(where, wish, "tmp_exec", kind.tmp_exec),
        shm_size=_size(where, wish, "shm_size", kind.shm_size),
        ipc=choice(f"{where}: ipc", wish.get("ipc", "host" if wish.get("mps") else "private"), IPC),
        uid=uid,
        gid=gid,
        memory_bytes=size(f"{where}: memory", memory) if memory is not None else None,
        cpu_set=_cpus(where, wish.get("cpus", placed.get("cpus") or ""), facts),
        gpus=_gpus(where, wish, placed, facts, bool(preset.get("gpu"))),
        pids=integer(f"{where}: pids", wish.get("pids", kind.pids), 16, 4194304),
        memlock=_memlock(where, wish),
        health=_health(where, wish, kind, container_port),
        stop_seconds=integer(f"{where}: stop_seconds", wish.get("stop_seconds", 30), 1, 3600),
        mps=_flag(where, wish, "mps"),
        mps_thread_percent=integer(f"{where}: mps_thread_percent", wish["mps_thread_percent"], 1, 100)
        if "mps_thread_percent" in wish
        else None,
        mps_memory=_size(where, wish, "mps_memory", None),
        writable_root=_flag(where, wish, "writable_root"),
        capabilities=_texts(where, wish, "capabilities"),
        probe=_flag(where, wish, "probe", answers),
    )


def _settings(engine: str) -> tuple[str, ...]:
    return {"open_webui": ("backends",)}.get(engine) or flags.names(engine)


def _flag(where: str, wish: Mapping[str, Any], name: str, default: bool = False) -> bool:
    value = wish.get(name, default)
    if not isinstance(value, bool):
        raise InputError(f"{where}: {name}: {value!r} is not a boolean; write true or false")
    return value


def _texts(where: str, wish: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = wish.get(name, [])
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError(f"{where}: {name}: {value!r} is not a list of texts")
    for one in value:
        if isinstance(one, (Mapping, list, tuple)) or one is None:
            raise InputError(f"{where}: {name}: {one!r} is not a text")
    return tuple(str(one) for one in value)


def _word(where: str, value: Any) -> str:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise InputError(f"{where}: {str(value)[:3]!r}... is not the name of a secret; declare it in "
                         "service_stack_secrets and write its name here")  # fmt: skip
    return value


def _image(where: str, value: Any) -> str:
    if not isinstance(value, str) or not _IMAGE.fullmatch(value):
        raise InputError(
            f"{where}: image: {value!r} is no image; write name@sha256:..., or a tag built on the machine with "
            "local_image: true"
        )
    return value


def has_digest(image: str) -> bool:
    """Whether the image is named by its content."""
    return _DIGEST.fullmatch(image) is not None


def _bind(where: str, value: Any) -> str:
    import ipaddress  # noqa: PLC0415 with the one place that needs it

    try:
        return str(ipaddress.IPv4Address(str(value)))
    except ValueError:
        raise InputError(
            f"{where}: bind: {value!r} is not an IPv4 address; 127.0.0.1 is this machine alone, 0.0.0.0 everybody"
        ) from None


def _user(where: str, value: Any) -> tuple[int, int]:
    match = _USER.fullmatch(str(value))
    if not match or int(match[1]) == 0:
        raise InputError(f"{where}: user: {value!r} is not UID or UID:GID with a UID above 0, like '10001:10001'")
    return int(match[1]), int(match[2] or match[1])


def _more_ports(where: str, value: Any) -> dict[int, int]:
    """Further ports, on 127.0.0.1 alone: the machine's and the one inside."""
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: more_ports: {value!r} is not a dictionary of ports on the machine and inside")
    place = f"{where}: more_ports"
    return {integer(place, outside, 1, 65535): integer(place, inside, 1, 65535) for outside, inside in value.items()}


def _model(where: str, model: str, options: Options) -> str:
    if not model:
        return ""
    path = model if model.startswith("/") else f"{options.models_path}/{model}"
    if ".." in path.split("/") or any(char in path for char in ":\n"):
        raise InputError(f"{where}: model: {model!r} is no path below {options.models_path}")
    return path


def _environment(where: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: environment: {value!r} is not a dictionary of variables")
    found = {}
    for name, text in value.items():
        if not _VARIABLE.fullmatch(str(name)) or isinstance(text, (Mapping, list, tuple)) or text is None:
            raise InputError(f"{where}: environment: {name!r} is no variable with one value")
        found[str(name)] = {True: "true", False: "false"}[text] if isinstance(text, bool) else str(text)
    return found


def _secret_environment(where: str, value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, Mapping) or not all(_VARIABLE.fullmatch(str(name)) for name in value):
        raise InputError(f"{where}: secret_environment is not a dictionary of variables and names of secrets")
    found = {}
    for name, secrets in value.items():
        listed = [secrets] if isinstance(secrets, str) else list(secrets or ())
        found[str(name)] = tuple(_word(f"{where}: secret_environment.{name}", one) for one in listed)
    return found


def _files(where: str, value: Any) -> dict[str, tuple[str, str]]:
    """Configuration files by a short name: (path inside, content)."""
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: files: it is not a dictionary of paths and contents")
    found = {}
    for path, content in value.items():
        if not str(path).startswith("/") or not isinstance(content, str):
            raise InputError(f"{where}: files: {str(path)!r} is no absolute path with a text")
        found[re.sub(r"[^A-Za-z0-9._-]", "_", str(path).strip("/"))] = (str(path), content)
    return found


def _mounts(where: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: {value!r} is not a dictionary of volume names and paths")
    for name, path in value.items():
        if not _WORD.fullmatch(str(name)) or not str(path).startswith("/"):
            raise InputError(f"{where}: {name}: {path!r} is not an absolute path inside the container")
    return {str(name): str(path) for name, path in value.items()}


def _size(where: str, wish: Mapping[str, Any], name: str, default: str | None) -> str | None:
    value = wish.get(name, default)
    if value is None:
        return None
    return str(size(f"{where}: {name}", value))


def _cpus(where: str, value: Any, facts: Mapping[str, Any]) -> str:
    wanted = cpus(f"{where}: cpus", value)
    online = cpus("online", ((facts.get("cpu") or {}).get("online")) or "")
    if online and (missing := set(wanted) - set(online)):
        raise InputError(
            f"{where}: cpus: {cpu_list(missing)} are not online here ({cpu_list(online)} are); the container would not "
            "start"
        )
    return cpu_list(wanted)


def _gpus(
    where: str, wish: Mapping[str, Any], placed: Mapping[str, Any], facts: Mapping[str, Any], needed: bool
) -> tuple[str, ...]:
    known = [str(one["uuid"]) for one in facts.get("gpus") or () if one.get("uuid")]
    if "gpus" in wish:
        wanted = _texts(where, wish, "gpus")
    elif placed.get("gpus"):
        wanted = tuple(placed["gpus"])
    elif needed and len(known) == 1:
        wanted = (known[0],)
    elif needed:
        seen = f"the machine shows {len(known)} GPUs" if facts else "the facts of the machine are not there"
        raise InputError(
            f"{where}: it needs a GPU and {seen}; give it one in workstation_services, or name gpus: [UUID] here "
            "(gpus: [] runs it without)"
        )
    else:
        wanted = ()
    for one in wanted:
        if not _UUID.fullmatch(one):
            raise InputError(f"{where}: gpus: {one!r} is not a UUID as nvidia-smi -L prints it; an index can move")
        if known and one.startswith("GPU-") and one not in known:
            raise InputError(f"{where}: gpus: {one} is not in this machine; there are {', '.join(known)}")
    return tuple(wanted)


def _memlock(where: str, wish: Mapping[str, Any]) -> str | None:
    value = wish.get("memlock")
    if value is None:
        return None
    return "-1" if str(value) in ("-1", "unlimited") else str(size(f"{where}: memlock", value))


def _health(where: str, wish: Mapping[str, Any], kind: Engine, port: int) -> Health | None:
    given = known_fields(f"{where}: health", wish.get("health", {}), _HEALTH)
    test = _texts(f"{where}: health", given, "test")
    path = str(given.get("path", kind.health if port else ""))
    if not test and not (path and port):
        return None
    numbers = {
        name: integer(f"{where}: health.{name}", given.get(name, default), 1, 86400)
        for name, default in (
            ("start_seconds", kind.start_seconds),
            ("interval_seconds", 10),
            ("timeout_seconds", 40),
            ("retries", 3),
        )
    }
    return Health(path=path, test=test, **numbers)
