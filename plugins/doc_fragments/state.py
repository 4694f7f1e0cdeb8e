# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What all state modules of this collection have in common."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  owner:
    description:
      - Whose set of keys this call describes. One call describes the whole set of its owner.
      - Keys which an earlier call of the same owner and module set, and which this call does not name,
        go back to the value they had before.
      - Keys of other owners are left alone. A file that another owner has written, and that this call would write
        otherwise, is refused.
    type: str
    default: default
  optional:
    description:
      - Names of keys that may be missing on this machine. They are skipped with the reason.
      - Any other key must exist, else the call fails before its first write.
    type: list
    elements: str
    default: []
  expect:
    description:
      - The RV(ignore:expect) value that an earlier call in check mode returned.
      - The call is refused when it would change anything else, because a value has moved since or because the
        parameters are others, so that exactly the plan that was shown is applied, once.
    type: str
attributes:
  check_mode:
    description: Predicts the changes without writing anything.
    support: full
  diff_mode:
    description: Returns every value before and after. The diff of check mode is the diff of the run that follows.
    support: full
  idempotent:
    description: A second run with the same parameters changes nothing.
    support: full
  platform:
    description: The systems that the module is written for.
    platforms: linux
    support: full
notes:
  - Needs root when there is something to change. Needs nothing but Python 3.9 on the target.
  - Every change is journaled in C(/var/lib/ai-workstation/ledger.json) before the first write. When a write
    fails, the writes of the same call are taken back and the error names the key, the value and what was restored.
  - Where Ansible reserves the name C(skipped) for itself, the list of skipped keys is RV(ignore:skipped_keys).
"""
