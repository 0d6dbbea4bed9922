#!/usr/bin/env python3
"""Writes src/search/parameters.txt, or with --check verifies it.

Usage: parameters.py [--check] DIR

DIR holds the unpacked npm package hl7.fhir.r4.examples@4.0.1. Its SearchParameters say by
FHIRPath which elements a parameter reads; its StructureDefinitions say which JSON members and
data types those are; its ValueSets say from which code system a `code` is.
"""

import json
import pathlib
import re
import sys

TABLE = pathlib.Path(__file__).parents[2] / "src/search/parameters.txt"
HEAD = """\
# The search parameters of FHIR R4 (4.0.1). Written by tests/tools/parameters.py from
# hl7.fhir.r4.examples@4.0.1. One a line:
#     type name kind path…                        kind: (targets) behind a reference, * for any
#     type name !why                              not supported, and why
# A type of * is every type. A path is JSON members and a data type:
#     name.given:string      telecom[system=email]:ContactPoint   of the items those where
#     gender:code=SYSTEM     codes without a system are of this one
#     subject:Reference>Patient                   references to that type alone
#     deceasedDateTime:exists                     true where there is one
#     -:false                                     where all other paths find nothing
"""

# The data types that each kind of parameter can compare.
KINDS = {
    "token": {"Coding", "CodeableConcept", "Identifier", "ContactPoint", "code", "boolean",
              "string", "id", "uri", "exists", "false"},
    "string": {"string", "HumanName", "Address"},
    "date": {"dateTime", "Period", "Timing"},
    "number": {"decimal", "Range"},
    "quantity": {"Quantity", "Money", "Range", "SampledData"},
    "uri": {"uri", "canonical"},
    "reference": {"Reference", "canonical", "uri"},
}
# What is compared as another data type.
SAME = {
    "date": "dateTime", "instant": "dateTime", "markdown": "string", "url": "uri", "oid": "uri",
    "uuid": "uri", "positiveInt": "decimal", "unsignedInt": "decimal", "integer": "decimal",
    "Age": "Quantity", "Duration": "Quantity", "Count": "Quantity", "Distance": "Quantity",
    "SimpleQuantity": "Quantity", "MoneyQuantity": "Quantity",
}
# An extension's values that a parameter without a data type of its own can mean.
EXTENSION = {
    "token": ["Coding", "CodeableConcept", "Identifier", "code", "boolean", "string", "uri"],
    "string": ["string", "markdown"],
    "reference": ["Reference", "canonical", "uri"],
}
SPECIAL = {
    "Patient.deceased.exists() and Patient.deceased != false":
        ["deceasedBoolean:boolean", "deceasedDateTime:exists", "-:false"],
}
# Served, they would promise more than the elements that they name.
REFUSED = {"phonetic": "names are not compared by their sound"}
ANY = 100


class Unsupported(Exception):
    """Why a parameter is not served."""


class Package:
    def __init__(self, folder):
        self.folder = folder
        self.elements = {}
        self.systems = {}

    def read(self, kind, name):
        file = self.folder / f"{kind}-{name}.json"
        return json.loads(file.read_text()) if file.is_file() else None

    def definition(self, ty):
        """path -> element, of a resource or data type."""
        if ty not in self.elements:
            found = self.read("StructureDefinition", ty) or {"snapshot": {"element": []}}
            self.elements[ty] = {e["path"]: e for e in found["snapshot"]["element"]}
        return self.elements[ty]

    def system(self, element):
        """The one code system that a code element is bound to, if there is one."""
        binding = element.get("binding", {})
        url = binding.get("valueSet", "").split("|")[0]
        if binding.get("strength") != "required" or not url:
            return None
        if url not in self.systems:
            value_set = self.read("ValueSet", url.rsplit("/", 1)[-1]) or {}
            includes = value_set.get("compose", {}).get("include", [])
            systems = {include.get("system") for include in includes}
            nested = any("valueSet" in include for include in includes)
            self.systems[url] = systems.pop() if len(systems) == 1 and not nested else None
        return self.systems[url]


class Place:
    """An element of a JSON document: its members, and where its definition stands."""

    def __init__(self, steps, ty, path, element=None):
        self.steps, self.ty, self.path, self.element = steps, ty, path, element


class Compiler:
    def __init__(self, package, kind):
        self.package, self.kind = package, kind

    def children(self, place, name):
        """The elements of this name below a place; one for each type of a choice."""
        definition = self.package.definition(place.ty)
        path = f"{place.path}.{name}"
        if path in definition:
            element = definition[path]
            if "contentReference" in element:
                return [Place(place.steps + [name], place.ty, element["contentReference"][1:])]
            return [self.typed(place, name, path, element, element["type"][0]["code"])]
        choice = definition.get(path + "[x]")
        if choice is None:
            raise Unsupported(f"{path} is no element")
        codes = [ty["code"] for ty in choice["type"]]
        return [self.typed(place, name + code[0].upper() + code[1:], path, choice, code)
                for code in codes]

    @staticmethod
    def typed(place, name, path, element, code):
        steps = place.steps + [name]
        if code in ("BackboneElement", "Element"):
            return Place(steps, place.ty, path, element)
        code = "id" if "System.String" in code else code
        return Place(steps, code, code, element)

    def part(self, base, text):
        """The paths of one part of a union."""
        tail = ""
        cast = re.fullmatch(r"\((.+) as (\w+)\)(.*)", text)
        if cast:
            text, tail = f"{cast[1]}.as({cast[2]})", cast[3]
        places, target = [Place([], base, base)], None
        for step in self.steps(text + tail)[1:]:
            if match := re.fullmatch(r"(?:as|ofType)\((\w+)\)", step):
                places = [p for p in places if p.ty == match[1]]
            elif match := re.fullmatch(r"where\(resolve\(\) is (\w+)\)", step):
                target = match[1]
            elif match := re.fullmatch(r"where\((\w+)='([^']+)'\)", step):
                self.narrow(places, f"{match[1]}={match[2]}")
            elif match := re.fullmatch(r"where\(hasExtension\('([^']+)'\)\)", step):
                self.narrow(places, f"extension.url={match[1]}")
            elif match := re.fullmatch(r"extension\('([^']+)'\)", step):
                places = self.extension(places, match[1])
            elif re.fullmatch(r"\w+", step):
                places = [child for p in places for child in self.children(p, step)]
            else:
                raise Unsupported(f"this server can't read its FHIRPath: {step}")
        # A choice may have types that this kind of parameter can't compare.
        fit = [place for place in places if SAME.get(place.ty, place.ty) in KINDS[self.kind]]
        return [self.written(place, target) for place in fit or places]

    @staticmethod
    def steps(text):
        """The steps of a path: what stands between dots that are in no bracket."""
        steps, depth = [""], 0
        for character in text:
            depth += {"(": 1, ")": -1}.get(character, 0)
            if character == "." and depth == 0:
                steps.append("")
            else:
                steps[-1] += character
        return steps

    @staticmethod
    def narrow(places, condition):
        for place in places:
            place.steps[-1] += f"[{condition}]"

    def extension(self, places, url):
        return [Place(p.steps + [f"extension[url={url}]", "value" + ty[0].upper() + ty[1:]], ty, ty)
                for p in places for ty in EXTENSION.get(self.kind, [])]

    def written(self, place, target):
        ty = SAME.get(place.ty, place.ty)
        if ty not in KINDS[self.kind]:
            raise Unsupported(f"{'.'.join(place.steps)} is {ty}, which is no {self.kind}")
        text = ".".join(place.steps) + ":" + ty
        if ty == "code" and self.kind == "token" and place.element:
            system = self.package.system(place.element)
            text += f"={system}" if system else ""
        return text + (f">{target}" if target and ty == "Reference" else "")

    def paths(self, base, expression):
        if expression in SPECIAL:
            return SPECIAL[expression]
        paths, refused = [], None
        for part in map(str.strip, expression.split("|")):
            part = f"{base}.{part}" if part[0].islower() else part
            if re.match(rf"\(*{base}\b", part):
                try:
                    paths += self.part(base, part)
                except Unsupported as why:
                    refused = why
        if not paths:
            raise refused or Unsupported("its FHIRPath reads nothing of this type")
        return list(dict.fromkeys(paths))


def row(package, base, parameter):
    kind = parameter["type"]
    shown = "*" if base in ("Resource", "DomainResource") else base
    start = f"{shown} {parameter['code']}"
    try:
        if kind not in KINDS:
            raise Unsupported(f"{kind} parameters are not served")
        if parameter["code"] in REFUSED:
            raise Unsupported(REFUSED[parameter["code"]])
        if not parameter.get("expression"):
            raise Unsupported("its definition says no element")
        paths = Compiler(package, kind).paths(base, parameter["expression"])
    except Unsupported as why:
        return f"{start} !{why}"
    if kind == "reference":
        targets = parameter.get("target", [])
        restricted = {p.split(">")[1] for p in paths if ">" in p}
        if restricted and all(">" in p for p in paths):
            targets = sorted(restricted)
        kind += "(" + ("*" if len(targets) > ANY or not targets else ",".join(targets)) + ")"
    return " ".join([start, kind, *paths])


def table(folder):
    package = Package(folder)
    rows = {}
    for file in sorted(folder.glob("SearchParameter-*.json")):
        parameter = json.loads(file.read_text())
        for base in parameter.get("base", []):
            rows.setdefault((base, parameter["code"]), row(package, base, parameter))
    lines = sorted(rows.values(), key=lambda line: line.split(" ")[:2])
    return HEAD + "\n".join(lines) + "\n"


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
