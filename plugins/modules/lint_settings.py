#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: lint_settings
short_description: Find settings in a repository that do nothing, are gone or do harm
version_added: 0.1.0
description:
  - Checks compose files, Dockerfiles, environment files, sysctl files and shell scripts against what CUDA, the NVIDIA
    container toolkit, PyTorch, NCCL, vLLM, llama.cpp, Docker and the kernel really read, by version where an image
    names one.
  - Every finding is printed as one line.
  - Every finding says what, why and what to do instead. The rules are listed in docs/linter.md.
  - Reads files on the controller. Nothing of the repository is executed, and links are not followed.
options:
  path:
    description: A folder, or one file.
    type: path
    required: true
  fail_on:
    description: The least severity that makes the task fail.
    type: str
    choices: [never, error, warning]
    default: error
  show:
    description: The least severity that is returned and reported. All are counted.
    type: str
    choices: [info, warning, error]
    default: info
  report:
    description: A file for the findings as JSON. Nothing is written in check mode.
    type: path
attributes:
  action:
    description: Runs as an action plugin.
    support: full
  check_mode:
    description: Says whether the report would change, and writes none.
    support: full
  diff_mode:
    description: There is nothing to differ.
    support: N/A
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: Check a repository, fail on errors
  ai_infra.workstation.lint_settings:
    path: /srv/stack

- name: Only look
  ai_infra.workstation.lint_settings:
    path: /srv/stack
    fail_on: never
    report: /tmp/settings.json
  register: settings
"""

RETURN = r"""
settings:
  description: The same as the report.
  returned: when the path could be read
  type: dict
  contains:
    findings:
      description: What was found, by file and line.
      type: list
      elements: dict
      contains:
        file:
          description: The file, relative to O(path).
          type: str
        line:
          description: The line, from 1; 0 for the whole file.
          type: int
        rule:
          description: The rule of docs/linter.md.
          type: str
        severity:
          description: info, warning or error.
          type: str
        setting:
          description: The setting.
          type: str
        message:
          description: What, why and what to do.
          type: str
        replacement:
          description: What to use instead, or an empty text.
          type: str
    counts:
      description: How many findings there are of each severity.
      type: dict
    files:
      description: How many files of each kind were checked.
      type: dict
lines:
  description: "The findings as C(path:line: severity: rule: message)."
  returned: when the path could be read
  type: list
  elements: str
worst:
  description: The highest severity that was found, or none.
  returned: when the path could be read
  type: str
"""
