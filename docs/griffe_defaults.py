"""For the reference: defaults as numbers, where the code says `_number(0.1, 0, 1)` or `_DEFAULT.tau`."""

import ast
from typing import Any

import griffe

CONFIGS = ("AgentConfig", "ModelConfig", "PlannerConfig")


class Defaults(griffe.Extension):
    """Reads defaults from the dataclasses of `jepa_agent.config` and writes them into signatures."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Replace the defaults of the settings, and of the constructors that take them."""
        if pkg.path != "jepa_agent":
            return
        known: dict[str, str] = {}
        for name in CONFIGS:
            config = pkg["config"][name]
            for attribute in config.attributes.values():
                if attribute.value is not None:
                    attribute.value = known[attribute.name] = plain(str(attribute.value))
            for parameter in config.parameters:
                parameter.default = known.get(parameter.name, parameter.default)
        for owner in (pkg["agent"]["JEPA"], pkg["policy"]["JEPAPolicy"]):
            for parameter in owner["__init__"].parameters:
                if str(parameter.default).startswith(("_DEFAULT.", "_SIZES.", "_AGENT.")):
                    parameter.default = known[str(parameter.default).partition(".")[2]]


def plain(value: str) -> str:
    """The first argument of a call of `_number`; anything else as it is."""
    node = ast.parse(value, mode="eval").body
    return ast.unparse(node.args[0]) if isinstance(node, ast.Call) else value
