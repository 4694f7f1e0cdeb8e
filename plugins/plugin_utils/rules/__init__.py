# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Conflict rules: what must not be wanted together, or not on this machine. Pure.

   evaluate(Context(facts, values, variables, names, profile, accept)) -> findings

base        what a rule and a finding are, the list of rules
context     what a rule may look at
declared    workstation_services, parsed
engine      asks every rule
inventory, driver, gpu, cpu, memory, kernel, services, firmware   the rules, by topic
homes.yml   every known trap and where it is caught; docs/rules.md is made from it
"""
