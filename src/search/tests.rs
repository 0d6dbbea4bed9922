//! Queries on single resources: what is found, and what is refused with which words.

use super::*;
use crate::{
    error::ApiError,
    fhir::ResourceType,
    store::{Place, Sought},
};

fn search_in(ty: &str, query: &str, context: Context<'_>) -> Result<Search, ApiError> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name.to_owned(), value.to_owned())
    };
    let pairs: Vec<_> = query.split('&').map(pair).collect();
    Search::parse(ResourceType::parse(ty).expect("a type"), &pairs, context)
}

fn finds(ty: &str, query: &str, json: &str) -> bool {
    let search = search_in(ty, query, Context::default());
    search.unwrap_or_else(|error| panic!("{query}: {error}")).matches(json.as_bytes())
}

/// Of queries on one resource, those that find it.
fn found<'q>(ty: &str, json: &str, queries: &[&'q str]) -> Vec<&'q str> {
    queries.iter().filter(|query| finds(ty, query, json)).copied().collect()
}

fn refusal(ty: &str, query: &str) -> String {
    search_in(ty, query, Context::default()).expect_err(query).diagnostics
}

const PATIENT: &str = r#"{"resourceType":"Patient","id":"f001","meta":{"lastUpdated":
    "2024-05-06T07:08:09.123Z","profile":["http://x/P|1.0"],"tag":[{"system":"http://t","code":"A"}]},
    "identifier":[{"system":"urn:oid:1.2","value":"738|4","type":{"coding":[{"system":"http://v2",
    "code":"MR"}],"text":"Medical Récord"}},{"value":"plain"}],"active":true,
    "name":[{"family":"van de Heuvel","given":["Piëter","P, J"]}],"gender":"male",
    "telecom":[{"system":"phone","value":"0648"},{"system":"email","value":"p@x.nl"}],
    "birthDate":"1944-11-17","address":[null,{"city":"Amsterdam","line":["Van Egmondkade 23"]}],
    "managingOrganization":{"reference":"Organization/f001"},
    "generalPractitioner":[{"reference":"Practitioner/p1/_history/3"},{"reference":
    "http://here/fhir/Organization/9"},{"identifier":{"system":"http://npi","value":"77"}}]}"#;

#[test]
fn tokens() {
    let hits = [
        "_id=f001",
        "_id=x,f001",
        "identifier=738\\|4",
        "identifier=urn:oid:1.2|738\\|4",
        "identifier=urn:oid:1.2|",
        "identifier=|plain",
        "gender=male",
        "gender=|male",
        "gender=http://hl7.org/fhir/administrative-gender|male",
        "gender:not=female",
        "active=true",
        "active=http://hl7.org/fhir/special-values|true",
        "deceased=false",
        "phone=0648",
        "telecom=email|p@x.nl",
        "_tag=http://t|A",
        "identifier:text=medical rec",
        "identifier:of-type=http://v2|MR|738\\|4",
        "gender:missing=false",
        "deceased:missing=false",
        "gender=female,male&active=true",
        "language:missing=true",
        "language:not=de",
    ];
    assert_eq!(found("Patient", PATIENT, &hits), hits);
    let misses = [
        "_id=F001",
        "identifier=738",
        "identifier=|738\\|4",
        "identifier=urn:oid:1.3|",
        "gender=Male",
        "gender=http://x|male",
        "gender:not=female,male",
        "active=false",
        "deceased=true",
        "phone=p@x.nl",
        "email=0648",
        "_tag=http://t|a",
        "identifier:of-type=http://v2|MR|plain",
        "gender:missing=true",
        "gender=male&active=false",
        "deceased:missing=true",
    ];
    assert_eq!(found("Patient", PATIENT, &misses), [""; 0]);
}

#[test]
fn strings_and_uris() {
    let hits = [
        "family=VAN",
        "given=pieter",
        "given:exact=Piëter",
        "given=p\\, j",
        "name=heuvel,pi",
        "family:contains=Heuv",
        "address=van  egmond",
        "address-city=amst",
        "_profile=http://x/P",
        "_profile=http://x/P|1.0",
        "_profile:below=http://x",
        "_profile:above=http://x/P/7",
    ];
    assert_eq!(found("Patient", PATIENT, &hits), hits);
    let misses = [
        "family=heuvel",
        "given:exact=Pieter",
        "given:exact=Pië",
        "address=egmond",
        "_profile=http://x/P|2.0",
        "_profile=http://x/p",
        "_profile:below=http://x/P/7",
        "_profile:below=http://x/Pa",
        "_profile:above=http://x/Patient",
    ];
    assert_eq!(found("Patient", PATIENT, &misses), [""; 0]);
}

#[test]
fn references() {
    let hits = [
        "organization=f001",
        "organization=Organization/f001",
        "organization:Organization=f001",
        "general-practitioner=p1",
        "general-practitioner=Practitioner/p1",
        "general-practitioner=Practitioner/p1/_history/3",
        "general-practitioner=http://here/fhir/Organization/9",
        "general-practitioner:identifier=http://npi|77",
    ];
    assert_eq!(found("Patient", PATIENT, &hits), hits);
    let misses = [
        "organization=f00",
        "general-practitioner:Organization=p1",
        "general-practitioner=9",
        "general-practitioner=Practitioner/p1/_history/2",
        "general-practitioner=Organization/9",
        "general-practitioner:identifier=http://npi|7",
        "organization=http://here/fhir/Organization/f001",
    ];
    assert_eq!(found("Patient", PATIENT, &misses), [""; 0]);
    // Who knows its own base knows what is here.
    let here = Context { base: Some("http://here/fhir/"), ..Context::default() };
    for query in [
        "general-practitioner=9",
        "general-practitioner=Organization/9",
        "general-practitioner=http://here/fhir/Organization/9",
        "organization=http://here/fhir/Organization/f001",
    ] {
        let search = search_in("Patient", query, here).expect(query);
        assert!(search.matches(PATIENT.as_bytes()), "{query}");
    }
}

#[test]
fn a_reference_to_a_type_alone() {
    let subject = |reference: &str| format!(r#"{{"subject":{reference}}}"#);
    let cases = [
        (r#"{"reference":"Patient/1"}"#, true),
        (r#"{"reference":"http://x/Patient/1"}"#, true),
        (r#"{"reference":"urn:uuid:1","type":"Patient"}"#, true),
        (r#"{"reference":"Group/1"}"#, false),
        (r#"{"reference":"urn:uuid:1"}"#, false),
        (r##"{"reference":"#p"}"##, false),
        (r#"{"display":"Peter"}"#, false),
    ];
    for (reference, is_patient) in cases {
        let json = subject(reference);
        assert_eq!(finds("Observation", "patient:missing=false", &json), is_patient, "{json}");
        assert!(finds("Observation", "subject:missing=false", &json));
    }
    // A bare id is of a type that the parameter refers to.
    assert!(finds("Observation", "subject=1", &subject(r#"{"reference":"Group/1"}"#)));
    assert!(!finds("Observation", "subject=1", &subject(r#"{"reference":"Encounter/1"}"#)));
    assert!(finds("Observation", "patient=1", &subject(r#"{"reference":"Patient/1"}"#)));
    assert!(!finds("Observation", "patient=1", &subject(r#"{"reference":"Group/1"}"#)));
}

#[test]
fn numbers_and_quantities() {
    let json = r#"{"valueQuantity":{"value":5.40,"system":"http://unitsofmeasure.org","code":"mg",
        "unit":"milligram"},"component":[{"valueQuantity":{"value":120,"comparator":"<"}}]}"#;
    let hits = [
        "value-quantity=5.4",
        "value-quantity=5",
        "value-quantity=5.4|http://unitsofmeasure.org|mg",
        "value-quantity=5.4||mg",
        "value-quantity=5.4||milligram",
        "value-quantity=gt5.39",
        "value-quantity=ge5.400",
        "value-quantity=ap5",
        "value-quantity=ne5.5",
        "value-quantity=sa5",
        "component-value-quantity=lt120",
        "component-value-quantity=lt1",
        "component-value-quantity=eb120",
        "value-quantity=1e1,540e-2",
    ];
    assert_eq!(found("Observation", json, &hits), hits);
    let misses = [
        "value-quantity=5.41",
        "value-quantity=5.4||g",
        "value-quantity=5.4|http://x|mg",
        "value-quantity=gt5.4",
        "value-quantity=ap4",
        "value-quantity=eb5.4",
        "component-value-quantity=120",
        "component-value-quantity=ge120",
        "component-value-quantity=sa1",
    ];
    assert_eq!(found("Observation", json, &misses), [""; 0]);
    let risk = r#"{"prediction":[{"probabilityDecimal":0.000168},{"probabilityRange":{"low":
        {"value":7},"high":{"value":9}}}]}"#;
    let hits = ["probability=1.68e-4", "probability=le9", "probability=ap8", "probability=gt8"];
    assert_eq!(found("RiskAssessment", risk, &hits), hits);
    assert!(!finds("RiskAssessment", "probability=8", risk), "a range is not one number");
    let invoice = r#"{"totalGross":{"value":48,"currency":"EUR"}}"#;
    let hits = ["totalgross=48||EUR", "totalgross=48|urn:iso:std:iso:4217|EUR"];
    assert_eq!(found("Invoice", invoice, &hits), hits);
}

#[test]
fn dates() {
    let hits = [
        "birthdate=1944",
        "birthdate=1944-11-17",
        "birthdate=ge1944-11-17",
        "birthdate=lt1945",
        "birthdate=ne1945",
        "birthdate=ap1944",
        "_lastUpdated=2024-05-06",
        "_lastUpdated=gt2024-05-06T07:08:09.122Z",
        "_lastUpdated=2024-05-06T09:08:09.123+02:00",
        "_lastUpdated=2024-05-06T09:08 02:00",
        "_lastUpdated=2024-05-06T07:08:09",
        "birthdate=gt1944-11-16&birthdate=lt1944-11-18",
        "birthdate=1900,1944",
    ];
    assert_eq!(found("Patient", PATIENT, &hits), hits);
    let misses = ["birthdate=1944-11-17T10:00:00Z", "birthdate=gt1944", "birthdate=eb1944-11-17"];
    assert_eq!(found("Patient", PATIENT, &misses), [""; 0]);
    let period = r#"{"effectivePeriod":{"start":"2013-04-02"}}"#;
    let hits = ["date=gt2090", "date=ge2013-04-02", "date=ap2013-05", "date=sa2013-04-01"];
    assert_eq!(found("Observation", period, &hits), hits);
    assert!(!finds("Observation", "date=2013-04-02", period), "it goes on");
    let timing = r#"{"effectiveTiming":{"event":["2013-01-31","2013-03-24"]}}"#;
    assert!(finds("Observation", "date=2013", timing));
    assert!(finds("Observation", "date=ap2013-02-01", timing));
}

#[test]
fn extensions_and_conditions_on_items() {
    let json = r#"{"item":[{"extension":[{"url":"x"}],"answer":[{"valueReference":{"reference":
        "Patient/no"}}]},{"answer":[{"valueReference":{"reference":"Patient/1"}}],"extension":[{"url":
        "http://hl7.org/fhir/StructureDefinition/questionnaireresponse-isSubject"}]}]}"#;
    assert!(finds("QuestionnaireResponse", "item-subject=Patient/1", json));
    assert!(!finds("QuestionnaireResponse", "item-subject=Patient/no", json));
}

#[test]
fn json_of_any_shape_is_decided() {
    let odd = [
        "null",
        "[]",
        "1.50",
        r#""x""#,
        r#"{"name":1}"#,
        r#"{"name":[[{"family":{"x":1e400}}]]}"#,
        r#"{"gender":null,"birthDate":7,"name":{"given":[null,{},true]},"telecom":"x"}"#,
        r#"{"identifier":[[],{"value":{"system":"x"}}],"generalPractitioner":["Patient/1",7]}"#,
    ];
    let queries = [
        "name=x",
        "gender=x",
        "birthdate=2000",
        "identifier=x",
        "general-practitioner=Organization/1",
        "phone=x",
        "identifier:text=x",
        "address=x",
    ];
    for json in odd {
        assert_eq!(found("Patient", json, &queries), [""; 0], "{json}");
    }
    assert!(finds("Patient", "gender:missing=true", odd[6]));
    for text in ["", "{", "{} x"] {
        assert!(!finds("Patient", "gender:missing=true", text), "{text}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let cases = [
        ("birthdate=yesterday", "is no date"),
        ("birthdate=xx2000", "is no date"),
        ("birthdate=ge", "is no date"),
        ("birthdate:exact=2000", "date parameter: it takes :missing"),
        ("name=", "empty alternative"),
        ("name=a,,b", "empty alternative"),
        ("name= ", "holds no text"),
        ("name=a\\b", "escapes nothing"),
        ("name:missing=yes", "neither true nor false"),
        ("active=yes", "neither true nor false"),
        ("gender:in=http://x", "terminology"),
        ("gender:text=m", "it takes :missing, :not"),
        ("identifier=a|b|c", "more than one '|'"),
        ("identifier=|", "names no code"),
        ("identifier:of-type=a|b", "Send all three"),
        ("organization=Patient/1", "It refers to Organization"),
        ("organization:Patient=1", "it takes :missing, :identifier, :Organization"),
        ("organization=a/b/c", "is no reference"),
        ("organization:Organization=Organization/", "is no id"),
        ("organization.name=x", "a chain of parameters"),
        ("organization:Organization.name=x", "a chain of parameters"),
        ("_has:Observation:patient:code=1", "a reverse chain"),
        ("_include=Patient:organization", "other resources"),
        ("_revinclude:iterate=*", "other resources"),
        ("phonetic=x", "by their sound"),
        ("_text=x", "not supported"),
        ("nonsense=1", "Known: _id, _lastUpdated"),
        ("_count=-1", "is no count"),
        ("_count=1&_count=2", "stands twice"),
        ("_sort=birthdate", "Send _lastUpdated or _id"),
        ("_summary=yes", "is no summary"),
        ("_elements=a.b", "no list of elements"),
        ("_elements=a&_summary=true", "Send one of them"),
        ("_profile:above=urn:oid:1", "is a URN"),
    ];
    for (query, part) in cases {
        let text = refusal("Patient", query);
        assert!(text.contains(part), "{query}: {text}");
        assert!(text.len() < 1_500, "{query}: {text}");
    }
    assert!(refusal("Observation", "value-quantity=5.4|mg").contains("5.4||mg"));
    assert!(refusal("Observation", "value-quantity=five").contains("is no number"));
    assert!(refusal("Observation", "code-value-quantity=a$5").contains("composite"));
}

#[test]
fn lenient_ignores_what_is_unknown_and_nothing_else() {
    let lenient = Context { lenient: true, ..Context::default() };
    let query = "nonsense=1&gender=male&organization.name=x&_include=a&phonetic=b";
    let search = search_in("Patient", query, lenient).expect("lenient");
    assert_eq!(search.ignored, ["nonsense", "organization.name", "_include", "phonetic"]);
    assert!(search.matches(PATIENT.as_bytes()));
    for wrong in ["birthdate=x", "gender:in=x", "gender:wrong=x", "_count=x", "name="] {
        assert!(search_in("Patient", wrong, lenient).is_err(), "{wrong}");
    }
}

#[test]
fn what_is_too_much_is_refused() {
    let long = format!("name={}", "x".repeat(100_000));
    assert!(refusal("Patient", &long).contains("65536 is the most"));
    let many = format!("_id={}", vec!["a"; 10_000].join(","));
    assert!(refusal("Patient", &many).contains("10000 values, and 1000 is the most"));
    let most = format!("_id={},f001", vec!["a"; 999].join(","));
    assert!(finds("Patient", &most, PATIENT));
    let text = refusal("Patient", &format!("{}=1", "ü".repeat(1_000)));
    assert!(text.starts_with("'ü") && text.contains('…'), "{text}");
}

#[test]
fn options_are_read() {
    let query =
        "_count=5&_elements=name,birthDate&_sort=-_lastUpdated,_id&_format=json&_pretty=true";
    let search = search_in("Patient", query, Context::default()).expect("a search");
    assert!(search.is_open());
    let updated = SortKey { by: SortBy::LastUpdated, descending: true };
    let id = SortKey { by: SortBy::Id, descending: false };
    assert_eq!((search.options.count, &search.options.sort[..]), (Some(5), &[updated, id][..]));
    let names = ["name", "birthDate"].map(String::from);
    assert_eq!(search.options.elements.as_deref(), Some(&names.into()));
}

/// What a query tells a store, a word for each sought value.
fn told(ty: &str, query: &str) -> Vec<String> {
    let search = search_in(ty, query, Context::default()).expect(query);
    let place = |place: &Place| {
        let value = |value: &Sought| format!("{} {value:?}", place.path.join("."));
        place.values.iter().map(value).collect::<Vec<_>>()
    };
    search.clues().iter().flat_map(|clue| clue.places.iter().flat_map(place)).collect()
}

#[test]
fn what_a_text_alone_tells_is_a_clue_and_nothing_else() {
    let cases = [
        ("gender=male", r#"gender Text("male")"#),
        ("active=true", "active Bool(true)"),
        ("identifier=urn:x|", r#"identifier.system Text("urn:x")"#),
        ("family:exact=Maier", r#"name.family Text("Maier")"#),
        ("organization=1", r#"managingOrganization.reference Begins("Organization/1/_history/")"#),
        ("_profile=http://x/P", r#"meta.profile Begins("http://x/P|")"#),
    ];
    for (query, clue) in cases {
        assert!(told("Patient", query).contains(&clue.to_owned()), "{query}");
    }
    let silent = [
        "family=maier",
        "gender:not=male",
        "gender:missing=true",
        "deceased=false",
        "birthdate=2000",
        "identifier:text=x",
        "_profile:above=http://x/P/7",
        "_lastUpdated=ne2020",
        "name:contains=x",
    ];
    for query in silent {
        assert_eq!(told("Patient", query), [""; 0], "{query}");
    }
    let long = format!("identifier={}", "x".repeat(2_000));
    assert_eq!(told("Patient", &long), [""; 0]);
    // A bare id of any type says too much.
    assert_eq!(told("List", "item=1"), [""; 0]);
}
