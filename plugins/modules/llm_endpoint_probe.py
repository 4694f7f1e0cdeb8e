#!/usr/bin/python
# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: llm_endpoint_probe
short_description: Ask an OpenAI-compatible server for a token
version_added: 0.1.0
description:
  - Proves that a server of language models really generates. It sends a tiny request, and a token must come back,
    streamed. A health path such as C(/health) goes on saying well when the engine behind it is dead.
  - Says what is wrong where none comes - nothing listens, the model is not loaded, the API key is wrong, the model has
    another name, the answer is not streamed, or the engine is dead behind a healthy path.
  - Works with llama.cpp, vLLM and gateways in front of them. Needs nothing but Python 3.9 on the target.
options:
  url:
    description: Address of the server, without C(/v1).
    type: str
    required: true
  model:
    description: The model to ask for. Left out, the first that the server lists.
    type: str
  api_key:
    description: Sent as a bearer token.
    type: str
  api_key_file:
    description: A file on the target that holds the key.
    type: path
  api:
    description: Which path is asked. V(auto) tries completions and then chat.
    type: str
    choices: [auto, completions, chat]
    default: auto
  prompt:
    description: What is asked.
    type: str
    default: Say yes.
  max_tokens:
    description: How many tokens are asked for.
    type: int
    default: 4
  stream:
    description: Whether the answer must be streamed.
    type: bool
    default: true
  timeout_seconds:
    description: Limit for one whole answer.
    type: float
    default: 60
  wait_seconds:
    description: How long to go on asking while nothing listens or the model is being loaded.
    type: float
    default: 0
  validate_certs:
    description: Whether the certificate of an https address is checked.
    type: bool
    default: true
  expect:
    description: The states that are right. Any other fails the task.
    type: list
    elements: str
    choices: [answers, refused, timeout, loading, unauthorized, no_model, not_streaming, dead, error]
    default: [answers]
attributes:
  check_mode:
    description: Asks in check mode too, as this changes nothing.
    support: full
  diff_mode:
    description: There is nothing to differ.
    support: N/A
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
seealso:
  - module: ai_infra.workstation.service_stack
author:
  - ai_infra.workstation contributors (@ai-infra)
"""

EXAMPLES = r"""
- name: A token must come
  ai_infra.workstation.llm_endpoint_probe:
    url: http://127.0.0.1:8004
    api_key_file: /etc/ai/llama.key
    wait_seconds: 300

- name: Without the key there must be none
  ai_infra.workstation.llm_endpoint_probe:
    url: http://127.0.0.1:8004
    expect: [unauthorized]
"""

RETURN = r"""
state:
  description: What was found, one of the choices of O(expect).
  returned: always
  type: str
  sample: answers
model:
  description: The model that answered, as the server calls it.
  returned: when a token came
  type: str
models:
  description: The models that the server lists.
  returned: when a token came
  type: list
  elements: str
api:
  description: Which path answered.
  returned: when a token came
  type: str
tokens:
  description: How many tokens came.
  returned: when a token came
  type: int
streamed:
  description: Whether they came one by one.
  returned: when a token came
  type: bool
first_token_ms:
  description: Milliseconds from the request to the first token.
  returned: when a token came, streamed
  type: float
total_ms:
  description: Milliseconds for all of it, the list of models included.
  returned: when a token came
  type: float
text:
  description: What was generated.
  returned: when a token came
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.doors.host import Host
from ..module_utils.errors import InputError
from ..module_utils.stack.probe import ask, endpoint
from ..module_utils.stack.specs import PROBE


def main() -> None:
    module = AnsibleModule(
        argument_spec=PROBE, supports_check_mode=True, mutually_exclusive=[["api_key", "api_key_file"]]
    )
    key = module.params["api_key"] or ""
    if module.params["api_key_file"]:
        key = Host().text(module.params["api_key_file"]) or ""
        if not key:
            module.fail_json(msg=f"api_key_file: {module.params['api_key_file']} cannot be read or is empty")
        module.no_log_values.add(key)
    try:
        result = ask(endpoint(module.params, key))
    except InputError as error:
        module.fail_json(msg=str(error))
    message = result.pop("message")
    if result["state"] not in module.params["expect"]:
        module.fail_json(msg=message, **result)
    module.exit_json(msg=message, **result)


if __name__ == "__main__":
    main()
