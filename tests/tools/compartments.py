#!/usr/bin/env python3
"""Writes src/fhir/compartment_patient.txt, or with --check verifies it.

Usage: compartments.py [--check] DIR

DIR holds the unpacked npm package hl7.fhir.r4.examples@4.0.1: the CompartmentDefinition
`patient` names search parameters, the SearchParameters say which elements those read.
"""

import json
import pathlib
import sys

TABLE = pathlib.Path(__file__).parents[2] / "src/fhir/compartment_patient.txt"
HEAD = """\
# The Patient compartment of FHIR R4 (4.0.1): type, and the elements whose references say
# whose compartment a resource of it is in. Written by tests/tools/compartments.py from
# CompartmentDefinition/patient and the SearchParameters of hl7.fhir.r4.examples@4.0.1.
"""
# The reference itself must say Patient, so this adds nothing.
IS_PATIENT = ".where(resolve() is Patient)"


def parameters(folder):
    """(base type, code) -> the parameter's FHIRPath."""
    found = {}
    for file in folder.glob("SearchParameter-*.json"):
        parameter = json.loads(file.read_text())
        for base in parameter.get("base", []):
            found.setdefault((base, parameter["code"]), parameter.get("expression", ""))
    return found


def elements(ty, expression):
    """The element paths below `ty` that a FHIRPath union reads."""
    for part in expression.split("|"):
        path = part.strip().removesuffix(IS_PATIENT)
        if path.startswith(ty + "."):
            path = path.removeprefix(ty + ".")
            if not all(name.isalpha() for name in path.split(".")):
                sys.exit(f"{ty}: can't read the path {path!r}")
            yield path


def table(folder):
    definition = json.loads((folder / "CompartmentDefinition-patient.json").read_text())
    expressions = parameters(folder)
    lines = []
    for resource in definition["resource"]:
        ty, codes = resource["code"], resource.get("param", [])
        paths = set()
        for code in codes:
            read = set(elements(ty, expressions[ty, code]))
            if not read:
                sys.exit(f"{ty}: the parameter {code!r} reads nothing")
            paths |= read
        if paths:
            lines.append(" ".join([ty, *sorted(paths)]))
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
