#!/usr/bin/env python3
"""Writes src/search/elements.txt, or with --check verifies it.

Usage: elements.py [--check] DIR

DIR holds the unpacked npm package hl7.fhir.r4.examples@4.0.1, whose StructureDefinitions say which
elements of a resource must be there or change its meaning, and which are its summary.
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[2]
TABLE = ROOT / "src/search/elements.txt"
HEAD = """\
# The own elements of each resource type of R4 (4.0.1), as JSON members: type, those that a part of
# a resource must hold (mandatory, or modifiers of its meaning), those of its summary, and the
# choices: `value` for value[x]; `-` for none. Written by tests/tools/elements.py from
# hl7.fhir.r4.examples@4.0.1.
"""


def members(element):
    name = element["path"].split(".")[1]
    if not name.endswith("[x]"):
        return [name]
    return [name[:-3] + ty["code"][0].upper() + ty["code"][1:] for ty in element["type"]]


def row(definition):
    ty = definition["type"]
    kept, summary, choices = [], [], []
    for element in definition["snapshot"]["element"]:
        if element["path"].count(".") != 1:
            continue
        if element["min"] > 0 or element.get("isModifier"):
            kept += members(element)
        if element.get("isSummary"):
            summary += members(element)
        if element["path"].endswith("[x]"):
            choices.append(element["path"].split(".")[1][:-3])
    return f"{ty} {','.join(kept)} {','.join(summary)} {','.join(choices) or '-'}"


def table(folder):
    lines = []
    for file in folder.glob("StructureDefinition-*.json"):
        definition = json.loads(file.read_text())
        is_resource = definition.get("kind") == "resource" and not definition.get("abstract")
        if is_resource and definition.get("derivation") == "specialization":
            lines.append(row(definition))
    return HEAD + "\n".join(sorted(lines)) + "\n"


def main(arguments):
    check = "--check" in arguments
    folders = [a for a in arguments if a != "--check"]
    if len(folders) != 1:
        sys.exit(__doc__)
    text = table(pathlib.Path(folders[0]))
    if not check:
        TABLE.write_text(text)
    elif TABLE.read_text() != text:
        sys.exit(f"{TABLE} is not what the package says")


main(sys.argv[1:])
