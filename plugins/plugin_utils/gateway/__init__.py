# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The gateway: one address in front of all engines that speak OpenAI's protocol, as a configuration of HAProxy. Pure.

   haproxy_config(endpoints, options) -> the text of haproxy.cfg, for HAProxy 2.6 or newer

endpoints   the engines: where each listens, what it is, which models it serves
options     all else, with its defaults
pools       which engines can answer for which model; engines with the same models are one pool
answers     what the gateway says itself, in the shape of OpenAI's errors
render      the text, section by section
keys        the file of API keys, which holds hashes only
"""

from __future__ import annotations

from typing import Any

from . import endpoints as engines
from . import options as settings
from .render import config


def haproxy_config(endpoints: Any, options: Any = None) -> str:
    """The text of haproxy.cfg, the same for the same input in whatever order. Raises InputError for wrong input."""
    known = engines.parse(endpoints)
    return config(known, settings.parse({} if options is None else options, known))
