# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What calls of service_stack and llm_endpoint_probe may say, as Ansible's argument specifications. Data only."""

from __future__ import annotations

from typing import Any

from .probe import STATES

# service_stack: containers, not knobs, so they have no owner and no ledger.
STACK: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "compose": {"type": "dict", "default": {}},
    "project": {"type": "str", "default": "ai-stack"},
    "directory": {"type": "path", "default": "/var/lib/ai-workstation/stack"},
    "services": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "local_image": {"type": "bool", "default": False},
            "health_seconds": {"type": "int", "default": 0},
            "models": {"type": "list", "elements": "path", "default": []},
            "caches": {"type": "list", "elements": "str", "default": []},
            "probe": {
                "type": "dict",
                "options": {
                    "port": {"type": "int", "required": True},
                    "address": {"type": "str", "default": "127.0.0.1"},
                    "secret": {"type": "str", "no_log": False},
                    "model": {"type": "str"},
                },
            },
        },
    },
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "service": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "content": {"type": "str", "required": True},
        },
    },
    "secrets": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "no_log": False,
        "options": {
            "service": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "uid": {"type": "int", "required": True},
            "gid": {"type": "int", "required": True},
        },
    },
    "secret_values": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "no_log": False,
        "options": {
            "name": {"type": "str", "required": True},
            "value": {"type": "str", "no_log": True},
            "file": {"type": "path"},
            "generate": {"type": "bool", "default": False},
        },
    },
    "units": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "content": {"type": "str", "required": True},
            "program_path": {"type": "path"},
            "program": {"type": "str"},
        },
    },
    "remove_volumes": {"type": "str", "choices": ["none", "caches", "all"], "default": "none"},
}

# llm_endpoint_probe, a question and no state.
PROBE: dict[str, Any] = {
    "url": {"type": "str", "required": True},
    "model": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "api_key_file": {"type": "path", "no_log": False},
    "api": {"type": "str", "choices": ["auto", "completions", "chat"], "default": "auto"},
    "prompt": {"type": "str", "default": "Say yes."},
    "max_tokens": {"type": "int", "default": 4, "no_log": False},
    "stream": {"type": "bool", "default": True},
    "timeout_seconds": {"type": "float", "default": 60.0},
    "wait_seconds": {"type": "float", "default": 0.0},
    "validate_certs": {"type": "bool", "default": True},
    "expect": {
        "type": "list",
        "elements": "str",
        "choices": list(STATES),
        "default": ["answers"],
    },
}
