"""What the development Hub finds wrong with the metadata of a card: a few of the Hub's own rules.

The standard library has no YAML reader, so this looks at the top level of the block line by line.
"""

from __future__ import annotations

import re

_KEY = re.compile(r"([A-Za-z_][\w.-]*):(?:\s+(.*))?")
_VALUES = {  # key -> what its value looks like, what is wrong else
    "license": (r"[a-z0-9][a-z0-9.-]*", '"license" must be one of the known identifiers, not {!r}'),
    "base_model": (
        r"[\w.-]+(/[\w.-]+)?",
        '"base_model" with value {!r} is not valid: a model id of the Hub is expected',
    ),
    "license_link": (r"LICENSE|https://.*", '"license_link" must be LICENSE or an https address'),
}
_COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
_OF_A_SPACE = {"sdk": ("static", "gradio", "docker"), "colorFrom": _COLOURS, "colorTo": _COLOURS}


def card_faults(text: str, kind: str = "model") -> list[str]:
    """Faults of the metadata block of a README, in words; none where there is no block, but a Space needs one."""
    lines = text.replace("\r\n", "\n").split("\n")
    if not lines or lines[0].strip() != "---":
        return ["a Space needs a metadata block with an sdk"] if kind == "space" else []
    if "---" not in lines[1:]:
        return ["the metadata block is not closed by ---"]
    faults: list[str] = []
    seen: dict[str, str] = {}
    for number, line in enumerate(lines[1 : lines.index("---", 1)], 2):
        if "\t" in line[: len(line) - len(line.lstrip())]:
            faults.append(f"line {number}: a tab cannot indent YAML")
        if not line.strip() or line[0] in " -#":
            continue
        match = _KEY.fullmatch(line)
        if match is None:
            faults.append(f"line {number}: not 'key: value'")
            continue
        key, value = match[1], (match[2] or "").strip().strip("'\"")
        if key in seen:
            faults.append(f"line {number}: duplicated mapping key {key!r}")
        seen[key] = value
        form, fault = _VALUES.get(key, (".*", ""))
        if value and not re.fullmatch(form, value):
            faults.append(fault.format(value))
    if "license_name" in seen and "license" not in seen:
        faults.append('"license_name" needs "license: other"')
    return faults + (_space_faults(seen) if kind == "space" else [])


def _space_faults(seen: dict[str, str]) -> list[str]:
    faults = [f'"{key}" is required' for key in ("sdk", "emoji", "colorFrom", "colorTo") if not seen.get(key)]
    for key, known in _OF_A_SPACE.items():
        if seen.get(key) and seen[key] not in known:
            faults.append(f'"{key}" must be one of {", ".join(known)}')
    if len(seen.get("short_description", "")) > 60:
        faults.append('"short_description" has more than 60 characters')
    return faults
