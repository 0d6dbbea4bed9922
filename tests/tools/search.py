#!/usr/bin/env python3
"""Evaluates searches, plainly: the judge of tests/search.rs.

Usage: search.py PACKAGE RESOURCES

PACKAGE holds the unpacked npm package hl7.fhir.r4.examples@4.0.1, RESOURCES is a file of one
resource a line. Prints one search a line as JSON: type, query (pairs of name and value), found (the
numbers of the lines). The searches are made from the values that the resources hold, and a list of
corner cases stands below.

Written from R4's page on search, not from the server: FHIRPath is interpreted on plain dicts as
the SearchParameters give it, numbers are Fractions, dates are pairs of datetimes.
"""

import collections
import datetime
import decimal
import fractions
import json
import pathlib
import random
import re
import sys
import unicodedata

UTC = datetime.timezone.utc
START = datetime.datetime(1, 1, 1, tzinfo=UTC)
END = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
Typed = collections.namedtuple("Typed", "value type")


# FHIRPath, as far as search parameters use it.

class Definitions:
    def __init__(self, package):
        self.package = package
        self.paths, self.parameters, self.systems = {}, {}, {}
        for file in sorted(package.glob("SearchParameter-*.json")):
            parameter = json.loads(file.read_text())
            for base in parameter.get("base", []):
                self.parameters.setdefault((base, parameter["code"]), parameter)

    def load(self, kind, name):
        file = self.package / f"{kind}-{name}.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def elements(self, name):
        if name not in self.paths:
            snapshot = self.load("StructureDefinition", name).get("snapshot", {})
            self.paths[name] = {e["path"]: e for e in snapshot.get("element", [])}
        return self.paths[name]

    def parameter(self, ty, code):
        for base in (ty, "DomainResource", "Resource"):
            if (base, code) in self.parameters:
                return self.parameters[base, code]
        raise KeyError((ty, code))

    def system_of(self, element):
        """The only code system of a required value set."""
        binding = element.get("binding", {})
        if binding.get("strength") != "required":
            return None
        value_set = self.load("ValueSet", binding["valueSet"].split("|")[0].split("/")[-1])
        includes = value_set.get("compose", {}).get("include", [])
        if len({i.get("system") for i in includes}) != 1 or any("valueSet" in i for i in includes):
            return None
        return includes[0].get("system")


def listed(value):
    if isinstance(value, list):
        return [item for v in value for item in listed(v)]
    return [] if value is None else [value]


def evaluate(definitions, ty, resource, expression):
    """The values that an expression gives: Typed, the type as far as the definitions tell it."""
    found = []
    for part in re.split(r"\s*\|\s*", expression):
        found += evaluate_part(definitions, ty, resource, part.strip())
    return found


def evaluate_part(definitions, ty, resource, part):
    if part == "Patient.deceased.exists() and Patient.deceased != false":
        dead = "deceasedDateTime" in resource or resource.get("deceasedBoolean") is True
        return [Typed(dead, ("boolean", None))]
    cast = re.match(r"\((.*) as (\w+)\)(.*)$", part)
    if cast:
        part = f"{cast[1]}.as({cast[2]}){cast[3]}"
    tokens = re.findall(r"(?:[^.(']|\((?:[^()']|'[^']*'|\([^()]*\))*\)|'[^']*')+", part)
    if tokens[0][0].isupper():
        if tokens[0] not in (ty, "Resource", "DomainResource"):
            return []
        tokens = tokens[1:]
    # (value, where its children are defined, the path of it there, its type)
    at = [(resource, ty, ty, ty)]
    for token in tokens:
        at = [after for before in at for after in step(definitions, before, token)]
    element = lambda root, path: definitions.elements(root).get(path, {})
    return [Typed(value, (kind, element(root, path))) for value, root, path, kind in at]


def step(definitions, before, token):
    value, root, path, kind = before
    if match := re.match(r"(?:as|ofType)\((\w+)\)$", token):
        return [before] if kind == match[1] else []
    if match := re.match(r"where\(resolve\(\) is (\w+)\)$", token):
        return [before] if refers_to(value, match[1]) else []
    if match := re.match(r"where\((\w+)='(.*)'\)$", token):
        return [before] if value.get(match[1]) == match[2] else []
    if match := re.match(r"where\(hasExtension\('(.*)'\)\)$", token):
        return [before] if any(e.get("url") == match[1] for e in value.get("extension", [])) else []
    if match := re.match(r"extension\('(.*)'\)$", token):
        inner = []
        for extension in value.get("extension", []):
            for name, item in extension.items():
                if extension.get("url") == match[1] and name.startswith("value"):
                    kind = name[5:] if name[5:] in TYPES else name[5].lower() + name[6:]
                    inner.append((item, kind, kind, kind))
        return inner
    if not isinstance(value, dict):
        return []
    return list(children(definitions, value, root, path, token))


TYPES = {"Age", "Annotation", "Attachment", "CodeableConcept", "Coding", "ContactPoint", "Count",
         "Distance", "Duration", "HumanName", "Address", "Identifier", "Money", "Period", "Quantity",
         "Range", "Ratio", "Reference", "SampledData", "Signature", "Timing", "Dosage", "Meta"}


def children(definitions, value, root, path, name):
    definition = definitions.elements(root)
    element = definition.get(f"{path}.{name}")
    if element is not None:
        below = (root, element["path"])
        if "contentReference" in element:
            below = (root, element["contentReference"][1:])
        kind = element.get("type", [{}])[0].get("code", "")
        if kind not in ("BackboneElement", "Element", "") :
            below = (kind, kind)
        for item in listed(value.get(name)):
            if kind and kind[0].islower() or "System.String" in kind:
                yield item, root, f"{path}.{name}", kind
            else:
                yield item, *below, kind
        return
    choice = definition.get(f"{path}.{name}[x]", {})
    for ty in choice.get("type", []):
        code = ty["code"]
        for item in listed(value.get(name + code[0].upper() + code[1:])):
            yield item, code, code, code


def refers_to(reference, ty):
    text = reference.get("reference", "").split("/_history/")[0]
    segments = text.split("/")
    if len(segments) > 1 and re.fullmatch(r"[A-Z]\w+", segments[-2]) and is_id(segments[-1]):
        return segments[-2] == ty
    return reference.get("type") == ty


def is_id(text):
    return re.fullmatch(r"[A-Za-z0-9.-]{1,64}", text) is not None


# Values.

def split(text, separator):
    """Apart at separators without a backslash before them; escapes stay."""
    parts, escaped = [""], False
    for c in text:
        if c == separator and not escaped:
            parts.append("")
        else:
            parts[-1] += c
        escaped = c == "\\" and not escaped
    return parts


def plain(text):
    return re.sub(r"\\(.)", r"\1", text)


def fold(text):
    parts = unicodedata.normalize("NFD", text.casefold())
    text = "".join(c for c in parts if not unicodedata.combining(c) or ord(c) >= 0x3000)
    return " ".join(unicodedata.normalize("NFC", text).split())


def interval(text):
    match = re.fullmatch(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?"
                         r"(Z|[+-]\d\d:\d\d)?)?)?)?", text)
    if not match:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    start = datetime.datetime(int(year), int(month or 1), int(day or 1), int(hour or 0),
                              int(minute or 0), int(second or 0), tzinfo=UTC)
    if zone and zone != "Z":
        sign = -1 if zone[0] == "-" else 1
        start -= sign * datetime.timedelta(hours=int(zone[1:3]), minutes=int(zone[4:]))
    if fraction:
        start += datetime.timedelta(microseconds=int(fraction[:6].ljust(6, "0")))
        return start, start + datetime.timedelta(microseconds=10 ** max(0, 6 - len(fraction)))
    if second:
        return start, start + datetime.timedelta(seconds=1)
    if minute:
        return start, start + datetime.timedelta(minutes=1)
    if day:
        return start, start + datetime.timedelta(days=1)
    if month:
        return start, start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return start, start.replace(year=start.year + 1)


def date_of(value):
    if isinstance(value, str):
        return interval(value)
    if not isinstance(value, dict):
        return None
    if "event" in value or "repeat" in value:
        parts = [interval(event) for event in value.get("event", [])]
        bounds = value.get("repeat", {}).get("boundsPeriod")
        parts += [date_of(bounds)] if bounds else []
        parts = [part for part in parts if part]
        return (min(p[0] for p in parts), max(p[1] for p in parts)) if parts else None
    if "start" in value or "end" in value:
        start = interval(value["start"])[0] if "start" in value else START
        return start, interval(value["end"])[1] if "end" in value else END
    return None


ORDERED = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")


def prefixed(text):
    return (text[:2], text[2:]) if text[:2] in ORDERED else ("eq", text)


def date_fits(value, wanted):
    prefix, text = prefixed(wanted)
    (start, end), target = interval(text.replace(" ", "+")), date_of(value)
    if target is None:
        return False
    within = start <= target[0] and target[1] <= end
    return {"eq": within, "ne": not within, "gt": target[1] > end, "lt": target[0] < start,
            "ge": target[1] > end or within, "le": target[0] < start or within,
            "sa": target[0] >= end, "eb": target[1] <= start,
            "ap": target[0] < end and start < target[1]}[prefix]


INFINITE = fractions.Fraction(10) ** 400


def number_fits(low, high, wanted):
    """Both ends belong to the value."""
    prefix, text = prefixed(wanted)
    at = fractions.Fraction(text)
    mantissa, _, exponent = text.lower().partition("e")
    digits = len(mantissa.partition(".")[2])
    half = fractions.Fraction(10) ** (int(exponent or 0) - digits) / 2
    within = at - half <= low and high < at + half
    tenth = abs(at) / 10
    return {"eq": within, "ne": not within, "gt": high > at, "lt": low < at, "ge": high >= at,
            "le": low <= at, "sa": low > at, "eb": high < at,
            "ap": high >= at - tenth and low <= at + tenth}[prefix]


def number_ends(value):
    if isinstance(value, (int, str, decimal.Decimal)) and not isinstance(value, bool):
        return fractions.Fraction(value), fractions.Fraction(value)
    if isinstance(value, dict) and ("low" in value or "high" in value):
        low, high = value.get("low", {}), value.get("high", {})
        if "value" not in low and "low" in value or "value" not in high and "high" in value:
            return None
        return (fractions.Fraction(low.get("value", -INFINITE)),
                fractions.Fraction(high.get("value", INFINITE)))
    if isinstance(value, dict) and "value" in value:
        at = fractions.Fraction(value["value"])
        nearly = fractions.Fraction(1, 10 ** 60)
        return {"<": (-INFINITE, at - nearly), "<=": (-INFINITE, at), ">": (at + nearly, INFINITE),
                ">=": (at, INFINITE)}.get(value.get("comparator"), (at, at))
    return None


def quantity_fits(value, wanted):
    number, *unit = [plain(part) for part in split(wanted, "|")]
    ends = number_ends(value)
    if ends is None or "origin" in value:
        return False
    for side in [value.get("low"), value.get("high")] if "low" in value or "high" in value else [value]:
        if side is None or not unit:
            continue
        if "currency" in side:
            side = {"system": "urn:iso:std:iso:4217", "code": side["currency"]}
        if unit[0] == "" and unit[1] not in (side.get("code"), side.get("unit")):
            return False
        if unit[0] != "" and (side.get("system"), side.get("code")) != tuple(unit):
            return False
    return number_fits(*ends, number)


def token_pairs(definitions, typed):
    """(system, code, whether case counts); a system of ... is any."""
    value, (kind, element) = typed
    if isinstance(value, bool):
        return [(..., "true" if value else "false", True)]
    if isinstance(value, str):
        if kind == "code":
            return [(("code", definitions.system_of(element)), value, True)]
        return [(("none",), value, kind != "string" and kind != "markdown")]
    if kind == "CodeableConcept":
        return [(c.get("system"), c.get("code"), True) for c in value.get("coding", [])]
    if kind == "Coding":
        return [(value.get("system"), value.get("code"), True)]
    return [(value.get("system"), value.get("value"), True)]


def token_fits(definitions, typed, wanted):
    parts = [plain(part) for part in split(wanted, "|")]
    for system, code, case in token_pairs(definitions, typed):
        asked = parts[-1]
        if not case:
            code, asked = code.lower(), asked.lower()
        if asked and code != asked:
            continue
        if len(parts) == 1:
            return True
        if isinstance(system, tuple):
            if parts[0] == "" or system[0] == "code" and system[1] == parts[0]:
                return True
        elif system is ...:
            if parts[0] == "" or "special-values" in parts[0]:
                return True
        elif (system or "") == parts[0]:
            return True
    return False


def token_texts(typed):
    value, (kind, _) = typed
    if kind == "CodeableConcept":
        return [value.get("text"), *(c.get("display") for c in value.get("coding", []))]
    if kind == "Coding":
        return [value.get("display")]
    return [value.get("type", {}).get("text")] if kind == "Identifier" else []


def strings(value):
    if isinstance(value, str):
        return [value]
    names = ["text", "family", "given", "prefix", "suffix", "line", "city", "district", "state",
             "postalCode", "country"]
    return [s for name in names for s in listed(value.get(name)) if isinstance(value, dict)]


def reference_fits(value, wanted, ty, targets):
    wanted = plain(wanted)
    if isinstance(value, str):
        return value == wanted or "|" not in wanted and value.split("|")[0] == wanted
    text = value.get("reference", "")
    whole = text.split("/_history/")[0]
    if ty:
        return whole == f"{ty}/{wanted}"
    if is_id(wanted):
        named = whole.split("/")
        return len(named) == 2 and named[1] == wanted and (not targets or named[0] in targets)
    return wanted in (text, whole)


def uri_fits(value, wanted, modifier, canonical):
    wanted = plain(wanted)
    bare = value.split("|")[0] if canonical else value
    above = {"above": (bare, wanted), "below": (wanted, bare)}.get(modifier)
    if above is None:
        return value == wanted or "|" not in wanted and bare == wanted
    upper, lower = above
    return lower == upper or lower.startswith(upper.rstrip("/") + "/")


def fits(definitions, parameter, modifier, typed, wanted):
    value, (kind, _) = typed
    sort = parameter["type"]
    if sort == "token" and modifier == "text":
        return any(fold(t).startswith(fold(plain(wanted))) for t in token_texts(typed) if t)
    if sort == "token" and modifier == "of-type":
        system, code, number = [plain(part) for part in split(wanted, "|")]
        types = value.get("type", {}).get("coding", []) if isinstance(value, dict) else []
        return value.get("value") == number and any(
            (c.get("system"), c.get("code")) == (system, code) for c in types)
    if sort == "token":
        return token_fits(definitions, typed, wanted)
    if sort == "string":
        wanted = plain(wanted)
        tests = {"exact": lambda s: s == wanted, "contains": lambda s: fold(wanted) in fold(s),
                 None: lambda s: fold(s).startswith(fold(wanted))}
        return any(map(tests[modifier], strings(value)))
    if sort == "date":
        return date_fits(value, wanted)
    if sort == "number":
        ends = number_ends(value)
        return ends is not None and number_fits(*ends, wanted)
    if sort == "quantity":
        return quantity_fits(value, wanted)
    if sort == "uri":
        return uri_fits(value, wanted, modifier, kind == "canonical")
    if modifier == "identifier":
        identifier = value.get("identifier") if isinstance(value, dict) else None
        return identifier is not None and token_fits(
            definitions, Typed(identifier, ("Identifier", {})), wanted)
    return reference_fits(value, wanted, modifier, parameter.get("target", []))


# The data types that a kind of parameter compares; others are no values of it.
COMPARED = {
    "date": {"date", "dateTime", "instant", "Period", "Timing"},
    "string": {"string", "markdown", "HumanName", "Address"},
    "number": {"decimal", "integer", "positiveInt", "unsignedInt", "Range"},
    "quantity": {"Quantity", "SimpleQuantity", "Age", "Duration", "Count", "Distance", "Money",
                 "Range", "SampledData", "MoneyQuantity"},
    "reference": {"Reference", "canonical", "uri", "url", "oid", "uuid"},
}


class Values:
    """The values of each parameter of each resource, evaluated once."""

    def __init__(self, definitions):
        self.definitions, self.known = definitions, {}

    def __call__(self, ty, resource, parameter):
        key = id(resource), parameter["id"]
        if key not in self.known:
            kinds = COMPARED.get(parameter["type"])
            values = evaluate(self.definitions, ty, resource, parameter["expression"])
            self.known[key] = [v for v in values if kinds is None or v.type[0] in kinds]
        return self.known[key]


def passes(values_of, ty, resource, name, value):
    code, _, modifier = name.partition(":")
    modifier = modifier or None
    definitions = values_of.definitions
    parameter = definitions.parameter(ty, code)
    values = values_of(ty, resource, parameter)
    if modifier == "missing":
        return (not values) == (value == "true")
    denied = modifier == "not"
    modifier = None if denied else modifier
    found = any(fits(definitions, parameter, modifier, v, w) for v in values for w in split(value, ","))
    return found != denied


# Searches.

CORNERS = [
    ("Patient", "deceased=false"), ("Patient", "deceased=true"), ("Patient", "name=PETER"),
    ("Patient", "name:contains=é"), ("Patient", "name:exact=Peter"), ("Patient", "gender:not=male"),
    ("Patient", "gender:not=male,female"), ("Patient", "gender:missing=true"),
    ("Patient", "gender=http://hl7.org/fhir/administrative-gender|female"),
    ("Patient", "gender=|female"), ("Patient", "gender=http://nowhere|female"),
    ("Patient", "active=true&gender=male"), ("Patient", "birthdate=ge1970&birthdate=lt1980-06"),
    ("Patient", "birthdate=1944,1974-12-25"), ("Patient", "birthdate:missing=true"),
    ("Patient", "email:missing=false"), ("Patient", "phone=gt"), ("Patient", "telecom=phone|"),
    ("Patient", "general-practitioner:missing=false"), ("Patient", "_lastUpdated=ge2010"),
    ("Patient", "identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|MR|12345"),
    ("Patient", "identifier=urn:oid:1.2.36.146.595.217.0.1|"), ("Patient", "_id=example,pat1,none"),
    ("Patient", "_tag:missing=false"), ("Patient", "_profile:missing=false"),
    ("Observation", "value-quantity=gt100"), ("Observation", "value-quantity=6.3"),
    ("Observation", "value-quantity=6"), ("Observation", "value-quantity=1e2"),
    ("Observation", "value-quantity=ap100"), ("Observation", "value-quantity=ne6.3"),
    ("Observation", "value-quantity=185|http://unitsofmeasure.org|[lb_av]"),
    ("Observation", "value-quantity=185||lbs"), ("Observation", "value-quantity=185||[lb_av]"),
    ("Observation", "combo-value-quantity=le60"), ("Observation", "value-quantity:missing=true"),
    ("Observation", "date=2012-09-17"), ("Observation", "date=ap2013-04"),
    ("Observation", "date=sa2013"), ("Observation", "date=eb2013"), ("Observation", "date=ne2012"),
    ("Observation", "date=gt2013-04-02T10:30:10+01:00"), ("Observation", "date=2013-04-02T09:30"),
    ("Observation", "date=2013-04-02T09:30:10.0Z"), ("Observation", "date:missing=true"),
    ("Observation", "code=http://loinc.org|"), ("Observation", "code=|11557-6"),
    ("Observation", "code:text=carbon"), ("Observation", "code:not=11557-6"),
    ("Observation", "patient:missing=true"), ("Observation", "subject:missing=true"),
    ("Observation", "subject:Patient=f001"), ("Observation", "subject=f001"),
    ("Observation", "value-string:contains=a"), ("Observation", "status=final,amended"),
    ("Observation", "patient=Patient/f001&code=11557-6,15074-8&status:not=amended"),
    ("RiskAssessment", "probability=gt0.5"), ("RiskAssessment", "probability=ap1"),
    ("Procedure", "date=ge2013"), ("Encounter", "date=le2013"), ("Encounter", "length=gt1"),
    ("Encounter", "length=140||min"), ("Condition", "onset-age=gt20"),
    ("Condition", "onset-date=lt2013"), ("Goal", "target-date:missing=false"),
    ("ValueSet", "url:below=http://hl7.org/fhir"), ("ValueSet", "url:below=http://hl7.org/fhi"),
    ("ValueSet", "url:above=http://hl7.org/fhir/ValueSet/languages/x"), ("ValueSet", "version=4.0.1"),
    ("CodeSystem", "name:contains=Status"), ("CodeSystem", "status=draft&date=ge2019"),
    ("QuestionnaireResponse", "questionnaire:missing=false"), ("Invoice", "totalgross=gt10||EUR"),
    ("Invoice", "totalgross=48|urn:iso:std:iso:4217|EUR"), ("Device", "udi-carrier:missing=true"),
    ("MedicationRequest", "code:missing=false"), ("MedicationRequest", "medication:missing=false"),
    ("Location", "address-city=ann"), ("Organization", "name=good"), ("Task", "owner:missing=true"),
    ("Questionnaire", "context-quantity:missing=true"), ("CarePlan", "activity-date=ge2012"),
    ("ExplanationOfBenefit", "patient:missing=false"), ("List", "item:missing=false"),
    ("Patient", "name=o\\,"), ("Patient", "family=van de heuvel"), ("Patient", "address=  534   erewhon "),
    ("Practitioner", "identifier=|23"), ("Library", "context:missing=true"),
    ("Immunization", "date=lt2014"), ("MedicationStatement", "effective=ge2015-01-23"),
    ("AuditEvent", "date=ge2012"), ("Provenance", "when:missing=true"), ("Group", "value=true"),
]


def escaped(text):
    return re.sub(r"([\\,|$])", r"\\\1", text)


def queries_of(dice, parameter, name, typed):
    """Searches by one value that a resource holds."""
    value, (kind, _) = typed
    sort = parameter["type"]
    if sort == "token":
        for pair in [value] if kind != "CodeableConcept" else value.get("coding", []):
            if isinstance(pair, (bool, str)):
                yield name, escaped(json.dumps(pair) if isinstance(pair, bool) else pair)
            elif isinstance(pair, dict):
                code = pair.get("code", pair.get("value"))
                system = pair.get("system", "")
                if isinstance(code, str) and code.strip():
                    yield name, escaped(code)
                    yield name, f"{escaped(system)}|{escaped(code)}"
                    yield f"{name}:not", escaped(code)
                if system:
                    yield name, f"{escaped(system)}|"
        for text in token_texts(typed):
            if text:
                yield f"{name}:text", escaped(text[:dice.randint(1, 9)].strip())
    elif sort == "string":
        for text in strings(value):
            cut = dice.randint(0, max(0, len(text) - 1))
            for modifier, part in (("", text[:cut + 1].upper()), (":contains", text[cut:]), (":exact", text)):
                if fold(part):
                    yield name + modifier, escaped(part)
    elif sort == "date":
        texts = [value] if isinstance(value, str) else re.findall(r'"(\d{4}-[^"]*)"', json.dumps(value))
        for text in texts:
            if interval(text):
                for cut in (4, 7, 10, 100):
                    yield name, dice.choice(("", *ORDERED)) + re.sub(r"T\d*:?$", "", text[:cut])
    elif sort in ("number", "quantity"):
        for number in re.findall(r'"value": "?(-?[\d.]+)', json.dumps(value, default=str)) or [str(value)]:
            if re.fullmatch(r"-?\d+(\.\d+)?", number):
                for text in (number, number.split(".")[0]):
                    yield name, dice.choice(("", *ORDERED)) + text
                if isinstance(value, dict) and "code" in value and "system" in value:
                    yield name, f"{number}|{escaped(value['system'])}|{escaped(value['code'])}"
                    yield name, f"{number}||{escaped(value['code'])}"
    elif sort == "uri":
        yield name, escaped(value)
        if "/" in value and not value.startswith("urn:"):
            yield f"{name}:below", escaped(value.rsplit("/", 1)[0])
            yield f"{name}:above", escaped(value + "/x")
    elif sort == "reference":
        if isinstance(value, str):
            if re.match(r"[A-Za-z][\w+.-]*:.", value):
                yield name, escaped(value)
                yield name, escaped(value.split("|")[0])
        elif "reference" in value:
            text = value["reference"].split("/_history/")[0]
            ty, _, key = text.partition("/")
            targets = parameter.get("target", [])
            if is_id(key) and ty in targets:
                yield from ((name, text), (name, key), (f"{name}:{ty}", key))
            elif ":" in text:
                yield name, escaped(text)
        elif "identifier" in value and value["identifier"].get("value"):
            yield f"{name}:identifier", escaped(value["identifier"]["value"])


def served(parameter):
    return parameter.get("expression") and parameter["type"] in {
        "token", "string", "date", "number", "quantity", "uri", "reference"} and (
        parameter["code"] not in ("phonetic", "part-agree") and "entry[0]" not in parameter["expression"])


def searches(values_of, resources):
    definitions = values_of.definitions
    dice = random.Random(5)
    for ty, query in CORNERS:
        yield ty, [tuple(pair.split("=", 1)) for pair in query.split("&")]
    by_type = collections.defaultdict(list)
    for resource in resources:
        by_type[resource["resourceType"]].append(resource)
    for ty, of_type in sorted(by_type.items()):
        for (base, code), parameter in sorted(definitions.parameters.items()):
            if base not in (ty, "Resource") or not served(parameter):
                continue
            made = []
            for resource in dice.sample(of_type, min(len(of_type), 40)):
                for typed in values_of(ty, resource, parameter):
                    made += queries_of(dice, parameter, code, typed)
            yield ty, [(f"{code}:missing", "true")]
            made = sorted(set(made))
            for pair in dice.sample(made, min(len(made), 6)):
                yield ty, [pair]
            if len(made) > 1:
                (name, one), (other, two) = dice.sample(made, 2)
                yield ty, [(name, one), (other, two)]
                if name == other:
                    yield ty, [(name, f"{one},{two}")]


def main(package, file):
    definitions = Definitions(pathlib.Path(package))
    lines = pathlib.Path(file).read_text().splitlines()
    # Numbers as they are written.
    resources = [json.loads(line, parse_float=decimal.Decimal) for line in lines if line]
    by_type = collections.defaultdict(list)
    for number, resource in enumerate(resources):
        by_type[resource["resourceType"]].append((number, resource))
    values_of = Values(definitions)
    for ty, query in searches(values_of, resources):
        found = [number for number, resource in by_type[ty]
                 if all(passes(values_of, ty, resource, *pair) for pair in query)]
        print(json.dumps({"type": ty, "query": query, "found": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
