//! FHIR resources of the facts. All are tagged as test data.

use jiff::{ToSpan, civil::Date};
use serde_json::{Number, Value, json};

use super::person::{Gap, Hba1c, Measure, Person, Pressure, TODAY};
use crate::fhir::resource::Resource;

const ACT_REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";
const ACT_CODE: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
const CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/observation-category";
const POPULATION: &str = "http://terminology.hl7.org/CodeSystem/measure-population";
const NOTATION: &str = "http://terminology.hl7.org/CodeSystem/measure-improvement-notation";
const GAP_STATUS: &str =
    "http://hl7.org/fhir/us/davinci-deqm/StructureDefinition/extension-gapStatus";
const GAPS_STATUS: &str = "http://hl7.org/fhir/us/davinci-deqm/CodeSystem/gaps-status";
const LOINC: &str = "http://loinc.org";
const UCUM: &str = "http://unitsofmeasure.org";
const IDENTIFIERS: &str = "https://fhirtail.example/demo/record-number";

pub(super) const PRACTITIONERS: usize = 5;
const ORGANIZATION: &str = "Organization/organization-01";

/// A tree of ours as a resource. Each has a type and a legal id, so it is never `None`; a test
/// counts them.
fn resource(tree: Value) -> Option<Resource> {
    Resource::from_value(tree).ok()
}

fn meta() -> Value {
    json!({"tag": [{"system": ACT_REASON, "code": "HTEST", "display": "test health data"}]})
}

pub(super) fn patient_id(number: usize) -> String {
    format!("patient-{number:04}")
}

fn subject(person: &Person) -> Value {
    json!({"reference": format!("Patient/{}", patient_id(person.number))})
}

fn practitioner_of(person: &Person) -> Value {
    let number = person.number % PRACTITIONERS + 1;
    json!({"reference": format!("Practitioner/practitioner-{number:02}")})
}

/// An instant of a day, without fractions.
fn instant(day: Date, hour: usize, minute: usize) -> String {
    format!("{day}T{:02}:{:02}:00Z", 8 + hour % 10, minute % 60)
}

fn ago(days: i64) -> Date {
    TODAY.saturating_sub(days.days())
}

/// The clinic and who works there.
pub(super) fn staff() -> impl Iterator<Item = Resource> {
    let clinic = json!({
        "resourceType": "Organization", "id": "organization-01", "meta": meta(), "active": true,
        "name": "Testwell Clinic (synthetic)",
    });
    let names = ["Avery", "Blake", "Casey", "Devon", "Ellis"];
    let people = (1..=PRACTITIONERS).zip(names).map(|(number, given)| {
        json!({
            "resourceType": "Practitioner", "id": format!("practitioner-{number:02}"),
            "meta": meta(), "active": true,
            "name": [{"family": "Sampleton", "given": [given], "prefix": ["Dr."]}],
        })
    });
    [clinic].into_iter().chain(people).filter_map(resource)
}

/// A person's Patient, Observations, and a MeasureReport and a DetectedIssue per measure.
pub(super) fn of_person(person: &Person) -> Vec<Resource> {
    let number = person.number;
    let mut all = vec![patient(person)];
    for (index, test) in person.hba1cs.iter().enumerate() {
        let at = instant(ago(test.days_ago), number, index * 7);
        all.push(hba1c(person, &format!("hba1c-{number:04}-{}", index + 1), *test, &at));
    }
    for (index, pressure) in person.pressures.iter().enumerate() {
        let at = instant(ago(pressure.days_ago), number, index * 11);
        all.push(blood_pressure(person, &format!("bp-{number:04}-{}", index + 1), *pressure, &at));
    }
    for measure in person.measures() {
        all.extend(standing(person, measure, person.gap(measure), &instant(TODAY, 0, number)));
    }
    all.into_iter().flatten().collect()
}

fn patient(person: &Person) -> Option<Resource> {
    let Person { number, given, family, birth, .. } = person;
    resource(json!({
        "resourceType": "Patient", "id": patient_id(*number), "meta": meta(),
        "identifier": [{"system": IDENTIFIERS, "value": format!("DEMO-{number:06}")}],
        "active": true,
        "name": [{"use": "official", "family": family, "given": [given]}],
        "gender": if person.is_female { "female" } else { "male" },
        "birthDate": birth.to_string(),
        "generalPractitioner": [practitioner_of(person)],
        "managingOrganization": {"reference": ORGANIZATION},
    }))
}

/// `7.20`: the digits that a laboratory reports.
fn decimal(hundredths: i64) -> Value {
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    Value::Number(Number::from_string_unchecked(text))
}

fn quantity(value: Value, unit: &str) -> Value {
    json!({"value": value, "unit": unit, "system": UCUM, "code": unit})
}

fn loinc(code: &str, display: &str) -> Value {
    json!({"coding": [{"system": LOINC, "code": code, "display": display}]})
}

/// A glycated haemoglobin.
pub(super) fn hba1c(person: &Person, id: &str, test: Hba1c, at: &str) -> Option<Resource> {
    let name = "Hemoglobin A1c/Hemoglobin.total in Blood";
    resource(json!({
        "resourceType": "Observation", "id": id, "meta": meta(), "status": "final",
        "category": [{"coding": [{"system": CATEGORY, "code": "laboratory"}]}],
        "code": loinc("4548-4", name),
        "subject": subject(person),
        "effectiveDateTime": at,
        "performer": [practitioner_of(person)],
        "valueQuantity": quantity(decimal(test.hundredths), "%"),
    }))
}

/// A blood pressure of two components.
pub(super) fn blood_pressure(
    person: &Person,
    id: &str,
    pressure: Pressure,
    at: &str,
) -> Option<Resource> {
    let part = |code, name, value: i64| {
        json!({
            "code": loinc(code, name),
            "valueQuantity": quantity(value.into(), "mm[Hg]"),
        })
    };
    resource(json!({
        "resourceType": "Observation", "id": id, "meta": meta(), "status": "final",
        "category": [{"coding": [{"system": CATEGORY, "code": "vital-signs"}]}],
        "code": loinc("85354-9", "Blood pressure panel with all children optional"),
        "subject": subject(person),
        "effectiveDateTime": at,
        "performer": [practitioner_of(person)],
        "component": [
            part("8480-6", "Systolic blood pressure", pressure.systolic),
            part("8462-4", "Diastolic blood pressure", pressure.diastolic),
        ],
    }))
}

/// How a person stands with a measure: the MeasureReport, and the DetectedIssue that cites it.
pub(super) fn standing(
    person: &Person,
    measure: Measure,
    gap: Gap,
    at: &str,
) -> [Option<Resource>; 2] {
    [report(person, measure, gap, at), issue(person, measure, gap, at)]
}

pub(super) fn report_id(number: usize, measure: Measure) -> String {
    format!("report-{number:04}-{}", measure.key())
}

pub(super) fn issue_id(number: usize, measure: Measure) -> String {
    format!("gap-{number:04}-{}", measure.key())
}

fn report(person: &Person, measure: Measure, gap: Gap, at: &str) -> Option<Resource> {
    let is_met = gap == Gap::Closed;
    let in_numerator = i64::from(is_met == measure.is_better_high());
    let count = |code: &str, count: i64| json!({"code": {"coding": [{"system": POPULATION, "code": code}]}, "count": count});
    let notation = if measure.is_better_high() { "increase" } else { "decrease" };
    resource(json!({
        "resourceType": "MeasureReport", "id": report_id(person.number, measure), "meta": meta(),
        "status": "complete", "type": "individual", "measure": canonical(measure),
        "subject": subject(person),
        "date": at,
        "reporter": {"reference": ORGANIZATION},
        "period": {"start": "2025-01-01", "end": "2025-12-31"},
        "improvementNotation": {"coding": [{"system": NOTATION, "code": notation}]},
        "group": [{
            "population": [
                count("initial-population", 1),
                count("denominator", 1),
                count("numerator", in_numerator),
            ],
            "measureScore": {"value": decimal(in_numerator * 100)},
        }],
    }))
}

fn canonical(measure: Measure) -> String {
    format!("https://fhirtail.example/demo/Measure/{}", measure.key())
}

fn issue(person: &Person, measure: Measure, gap: Gap, at: &str) -> Option<Resource> {
    let code = match gap {
        Gap::Open => "open-gap",
        Gap::Closed => "closed-gap",
        Gap::Prospective => "prospective-gap",
    };
    let status = if gap == Gap::Prospective { "preliminary" } else { "final" };
    let report = format!("MeasureReport/{}", report_id(person.number, measure));
    resource(json!({
        "resourceType": "DetectedIssue", "id": issue_id(person.number, measure), "meta": meta(),
        "modifierExtension": [{
            "url": GAP_STATUS,
            "valueCodeableConcept": {"coding": [{"system": GAPS_STATUS, "code": code}]},
        }],
        "status": status,
        "code": {
            "coding": [{"system": ACT_CODE, "code": "CAREGAP", "display": "Care Gaps"}],
            "text": measure.title(),
        },
        "patient": subject(person),
        "identifiedDateTime": at,
        "evidence": [{"detail": [{"reference": report}]}],
    }))
}

/// Everyone whom a measure is about.
pub(super) fn group(measure: Measure, members: impl Iterator<Item = usize>) -> Option<Resource> {
    let member = |number| {
        let reference = format!("Patient/{}", patient_id(number));
        json!({"entity": {"reference": reference}})
    };
    let members: Vec<_> = members.map(member).collect();
    let mut tree = json!({
        "resourceType": "Group", "id": format!("group-{}", measure.key()), "meta": meta(),
        "active": true, "type": "person", "actual": true, "name": measure.title(),
        "quantity": members.len(),
    });
    // FHIR has no empty arrays.
    if !members.is_empty() {
        tree["member"] = Value::Array(members);
    }
    resource(tree)
}
