# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Python environments from lock files with hashes, made by a pinned uv. The environments belong to their users.

What is installed is asked of uv itself (a dry run of `uv pip sync`), so that a package that someone added or removed
is noticed. A folder is ours when it holds our copy of the lock; no other one is written or removed.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .doors.host import Completed, FileState, Host
from .errors import ApplyError, InputError, RefusedError
from .values import choice

# Our copy of the lock in each environment.
MARK = "ai-workstation.lock"
_PIN = re.compile(r"^uv==(?P<version>\d+(?:\.\d+)+)(?: *\\?\n? *--hash=sha256:[0-9a-f]{64})+$")
_VERSION = re.compile(r"3\.\d{1,2}(\.\d{1,2})?")
_PATH = re.compile(r"/[A-Za-z0-9._+/-]+")
_BACKEND = re.compile(r"|auto|cpu|cu\d{2,3}|rocm\d(\.\d)*|xpu")
_SOURCES = {"any": "managed", "system": "only-system", "managed": "only-managed"}
_SETTINGS = ("UV_", "PIP_", "SSL_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_TIMEOUT = 3600


@dataclass(frozen=True)
class Environment:
    """One environment as it is wanted."""

    path: str
    present: bool
    owner: str
    python: str
    source: str
    lock: str
    backend: str

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.lock.encode()).hexdigest()


@dataclass(frozen=True)
class Wishes:
    """uv: its pin with hashes; empty where it goes. wheels: a folder used instead of a package index."""

    folder: str
    uv: str
    wheels: str
    environments: tuple[Environment, ...]

    @property
    def version(self) -> str:
        match = _PIN.match(self.uv)
        return match["version"] if match else ""

    @property
    def program(self) -> str:
        return f"{self.folder}/bin/uv"


def parse(params: Mapping[str, Any]) -> Wishes:
    pin = str(params.get("uv") or "").strip()
    if pin and not _PIN.match(pin):
        raise InputError("uv: not a pinned requirement with hashes, like 'uv==0.13.8 --hash=sha256:...'")
    found: dict[str, Environment] = {}
    for item in params["environments"]:
        one = _environment(item)
        if one.path in found:
            raise InputError(f"environments: {one.path} is named twice")
        if one.present and not pin:
            raise InputError(f"environments {one.path}: needs uv, the pinned installer")
        found[one.path] = one
    return Wishes(_path("folder", params["folder"]), pin, str(params.get("wheels") or ""), tuple(found.values()))


def _environment(item: Mapping[str, Any]) -> Environment:
    path = _path("environments", item["path"])
    where, lock = f"environments {path}", str(item.get("lock") or "").strip() + "\n"
    present = item.get("state") != "absent"
    if not _VERSION.fullmatch(str(item["python"])):
        raise InputError(f"{where}: python: {item['python']!r} is not a version like '3.12'; quote it in YAML")
    backend = str(item.get("torch_backend") or "")
    if not _BACKEND.fullmatch(backend):
        raise InputError(f"{where}: torch_backend: {backend!r} is not one of auto, cpu, cu128 and the like")
    if present:
        _check_lock(where, lock)
    source = choice(f"{where}: python_source", item.get("python_source") or "any", _SOURCES)
    return Environment(path, present, str(item.get("owner") or "root"), str(item["python"]), source, lock, backend)


def _check_lock(where: str, lock: str) -> None:
    """Every requirement pinned and hashed: uv would say so as well, but only when it installs."""
    for block in re.split(r"(?<!\\)\n", lock):
        text = " ".join(block.split())
        if text and not text.startswith(("#", "--")) and ("==" not in text or "--hash=sha256:" not in text):
            raise InputError(f"{where}: lock: {text.split()[0]!r} is not pinned with a hash; uv pip compile does that")
    if "==" not in lock:
        raise InputError(f"{where}: lock: it names no package")


def _path(parameter: str, value: Any) -> str:
    if not _PATH.fullmatch(str(value)) or os.path.normpath(str(value)) != str(value):
        raise InputError(f"{parameter}: {value!r} is not a plain absolute path, like '/opt/ai-workstation/python'")
    return str(value)


def converge(wishes: Wishes, host: Host, check: bool) -> dict[str, Any]:
    """Bring uv and all environments to what is wanted; the result of the module."""
    run = _Run(wishes, host, check)
    run.check_owners()
    for environment in wishes.environments:
        if not environment.present:
            run.remove_environment(environment)
    run.settle_uv()
    for environment in wishes.environments:
        if environment.present:
            run.settle(environment)
    texts = [[f"{one['key']}: {one[side] or 'none'}\n" for one in run.changes] for side in ("before", "after")]
    diff = {"before": "".join(texts[0]), "after": "".join(texts[1])}
    return {"changed": bool(run.changes), "changes": run.changes, "diff": diff, "warnings": []}


class _Run:
    """One call. In check mode changes are listed, and nothing is done."""

    def __init__(self, wishes: Wishes, host: Host, check: bool) -> None:
        self._wishes, self._host, self._check = wishes, host, check
        self.changes: list[dict[str, Any]] = []

    def check_owners(self) -> None:
        for one in self._wishes.environments:
            if one.present:
                _account(one)
            if self._host.resolve(one.path) != one.path:
                raise RefusedError(f"{one.path}: a link on the way leads to {self._host.resolve(one.path)}; name that")
            if self._host.exists(one.path) and self._host.names(one.path) and not self._mark(one):
                raise RefusedError(f"{one.path} is there and holds no {MARK}: it is not ours; choose another path")

    def settle_uv(self) -> None:
        """The pinned uv in an environment of its own, its hash proven by pip; or none."""
        wishes = self._wishes
        there = self._host.run([wishes.program, "--version"]) if self._host.exists(wishes.program) else None
        before = there.out.split()[1] if there and there.code == 0 and len(there.out.split()) > 1 else None
        if before == (wishes.version or None):
            return
        self._change("uv", before, wishes.version or None)
        if self._check:
            return
        shutil.rmtree(self._host.at(wishes.folder), ignore_errors=True)
        if not wishes.uv:
            return
        os.makedirs(os.path.dirname(self._host.at(wishes.folder)), exist_ok=True)
        made = self._host.act(["/usr/bin/python3", "-m", "venv", wishes.folder])
        if made.code:
            raise ApplyError(f"uv: {_last(made)}; the package python3-venv brings what is missing")
        pin = f"{wishes.folder}/uv.txt"
        self._host.write_file(pin, FileState(wishes.uv + "\n", 0o644, self._host.uid(), os.getegid()))
        local = ["--no-index", "--find-links", wishes.wheels] if wishes.wheels else []
        command = [f"{wishes.folder}/bin/pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = self._host.act([*_settings(), *command, "--require-hashes", *local, "-r", pin], _TIMEOUT)
        if done.code:
            raise ApplyError(f"uv {wishes.version}: {_last(done)}")

    def settle(self, one: Environment) -> None:
        """One environment: its Python, then exactly the packages of its lock."""
        before = self._mark(one)
        if before is None or not self._fits(one):
            self._change(f"python:{one.path}", None, f"{one.python} with {one.digest}")
            if not self._check:
                self._create(one)
            return
        same = before == one.lock
        if same and (not self._host.exists(self._wishes.program) or self._complete(one)):
            return
        found = "sha256:" + hashlib.sha256(before.encode()).hexdigest()
        self._change(f"packages:{one.path}", f"{found}{', changed by someone' if same else ''}", one.digest)
        if not self._check:
            self._write_lock(one)
            self._finish(one)

    def remove_environment(self, one: Environment) -> None:
        if self._mark(one) is None:
            return
        self._change(f"python:{one.path}", "present", None)
        if not self._check:
            self._host.before_write(one.path)
            shutil.rmtree(self._host.at(one.path))

    def _create(self, one: Environment) -> None:
        user, path = _account(one), self._host.at(one.path)
        # What a killed run left is ours: check_owners() has looked at the mark.
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path, exist_ok=True)
        os.chown(path, user.pw_uid, user.pw_gid)
        self._write_lock(one)
        command = ["venv", "--quiet", "--allow-existing", "--python", one.python]
        made = self._uv(one, *command, "--python-preference", _SOURCES[one.source], one.path)
        if made.code:
            raise ApplyError(f"{one.path}: Python {one.python} ({one.source}): {_last(made)}")
        self._finish(one)

    def _finish(self, one: Environment) -> None:
        done = self._sync(one)
        if done.code:
            raise ApplyError(f"{one.path}: {_last(done)}; the next run goes on")
        if not self._complete(one):
            raise ApplyError(f"{one.path}: the packages are not those of the lock after they were installed")

    def _complete(self, one: Environment) -> bool:
        """Whether exactly the packages of our lock are there. Asked without a network and without a write."""
        planned = self._sync(one, "--dry-run", "--offline", "--no-cache")
        return planned.code == 0 and "Would make no changes" in planned.err

    def _sync(self, one: Environment, *flags: str) -> Completed:
        backend = ["--torch-backend", one.backend] if one.backend else []
        local = ["--no-index", "--find-links", self._wishes.wheels] if self._wishes.wheels else []
        python = ["--python", f"{one.path}/bin/python"]
        return self._uv(one, "pip", "sync", "--require-hashes", *flags, *python, *backend, *local, f"{one.path}/{MARK}")

    def _uv(self, one: Environment, *arguments: str) -> Completed:
        """Run uv as the user of the environment, with his home and the caller's settings of proxies and indexes."""
        user = _account(one)
        become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups", "--"]
        words = [*(become if user.pw_uid != os.geteuid() else []), *_settings(f"HOME={user.pw_dir}")]
        call = self._host.run if "--dry-run" in arguments else self._host.act
        return call([*words, self._wishes.program, *arguments], _TIMEOUT)

    def _fits(self, one: Environment) -> bool:
        """Whether the environment has the wanted Python, and that Python is still there."""
        text = self._host.text(f"{one.path}/pyvenv.cfg") or ""
        match = re.search(r"^version_info\s*=\s*(\S+)", text, re.MULTILINE)
        version = f"{match[1]}." if match else ""
        return version.startswith(f"{one.python}.") and self._host.exists(f"{one.path}/bin/python")

    def _mark(self, one: Environment) -> str | None:
        state = self._host.file(f"{one.path}/{MARK}")
        return state.content if state else None

    def _write_lock(self, one: Environment) -> None:
        user = _account(one)
        self._host.write_file(f"{one.path}/{MARK}", FileState(one.lock, 0o644, user.pw_uid, user.pw_gid))

    def _change(self, key: str, before: str | None, after: str | None) -> None:
        change = {"key": key, "before": before, "after": after, "scope": "persistent", "reboot_required": False}
        self.changes.append({**change, "reason": ""})


def _account(one: Environment) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(one.owner)
    except KeyError as error:
        raise InputError(f"environments {one.path}: owner: there is no user {one.owner}; create the user") from error


def _settings(*more: str) -> list[str]:
    """env(1) with what decides where packages come from; the door clears the rest.

    In /, since uv reads settings of the current folder, which another user may not even enter.
    """
    passed = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(_SETTINGS)]
    return ["env", "--chdir=/", *passed, *more]


def _last(done: Completed) -> str:
    """The words of a failed command, without its drawing characters."""
    lines = [line.strip(" |") for line in (done.err or done.out).encode("ascii", "ignore").decode().splitlines()]
    return "; ".join(line for line in lines if line)[-600:] or f"ended with status {done.code}"
