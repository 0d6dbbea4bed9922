use super::*;

fn ty(name: &str) -> ResourceType {
    ResourceType::parse(name).expect("a type")
}

fn read(values: &[&str], lenient: bool) -> Result<(TypeFilters, Vec<String>), ApiError> {
    let values: Vec<_> = values.iter().map(|value| (*value).to_owned()).collect();
    TypeFilters::parse(&values, Context { lenient, base: None })
}

fn filters(values: &[&str]) -> TypeFilters {
    read(values, false).unwrap_or_else(|error| panic!("{values:?}: {error}")).0
}

fn refused(values: &[&str]) -> String {
    let error = read(values, false).expect_err("it is refused");
    assert_eq!(error.status, StatusCode::BAD_REQUEST);
    assert_eq!(error.expression, ["_typeFilter"]);
    error.diagnostics
}

const FINAL: &[u8] = br#"{"resourceType":"Observation","status":"final","code":{"text":"a,b"}}"#;
const DRAFT: &[u8] = br#"{"resourceType":"Observation","status":"preliminary"}"#;

#[test]
fn one_search_of_a_type_is_enough() {
    let one = filters(&["Observation?status=final"]);
    assert!(one.find(ty("Observation"), FINAL) && !one.find(ty("Observation"), DRAFT));
    assert!(one.find(ty("Patient"), b"{}"), "a type without searches is whole");
    assert!(one.narrow(ty("Observation")) && !one.narrow(ty("Patient")));
    assert!(!one.find(ty("Observation"), b"no JSON"));
    for both in [
        &["Observation?status=final", "Observation?status=preliminary"][..],
        &["Observation?status=final,Observation?status=preliminary"],
        &["Observation?status=final, Observation?status=preliminary,Patient?active=true"],
        &["Observation?status=final,preliminary"],
    ] {
        assert!([FINAL, DRAFT].iter().all(|json| filters(both).find(ty("Observation"), json)));
    }
    let all = filters(&["Observation?status=final", "Observation?"]);
    assert!(all.find(ty("Observation"), DRAFT) && !all.narrow(ty("Observation")));
    let none = filters(&["Observation?status=final&status=preliminary"]);
    assert!(!none.find(ty("Observation"), FINAL), "within a search both must hold");
}

#[test]
fn a_query_is_decoded_once_more() {
    let query = filters(&["Observation?code:text=a%5C%2Cb"]);
    assert!(query.find(ty("Observation"), FINAL));
    assert_eq!(
        pairs(b"a=%C3%BC+%2B%zz%4&b&&c=d=e"),
        [
            ("a".to_owned(), "ü +%zz%4".to_owned()),
            ("b".to_owned(), String::new()),
            ("c".to_owned(), "d=e".to_owned()),
        ]
    );
    assert_eq!(searches("A?b=c,d,e?f,Gh?i,jK?l"), ["A?b=c,d,e?f", "Gh?i,jK?l"]);
}

#[test]
fn equal_searches_are_equal() {
    let hash = |filters: &TypeFilters| filters.hashed(StableHash::default()).finish();
    let base = filters(&["Observation?status=final&code=x", "Patient?active=true"]);
    let same = filters(&[
        "Patient?active=true,Observation?code=x&status=final&code=x",
        "Observation?code=%78&status=final",
    ]);
    assert_eq!((&base, hash(&base)), (&same, hash(&same)));
    for other in [
        &["Observation?status=final&code=x"][..],
        &["Observation?status=final", "Observation?code=x", "Patient?active=true"],
        &["Observation?status=final&code=y", "Patient?active=true"],
    ] {
        assert_ne!(hash(&base), hash(&filters(other)), "{other:?}");
        assert_ne!(base, filters(other));
    }
    assert_eq!(hash(&filters(&[])), StableHash::default().finish(), "older positions stay");
}

#[test]
fn what_is_not_understood_is_named() {
    for (value, part) in [
        ("Observation", "Type?query"),
        ("", "Type?query"),
        ("Thing?a=b", "'Thing' is no resource type"),
        ("Observation?color=red", "'color' is no search parameter of Observation"),
        ("Observation?subject.name=x", "chain"),
        ("Observation?_include=Observation:subject", "taking along"),
        ("Observation?_has:X:y:z=1", "reverse chain"),
        ("Observation?date=ge13", "no date"),
        ("Observation?code:in=x", "terminology"),
        ("Observation?_sort=_id", "_sort says how"),
        ("Observation?status=final&_count=5", "_count says how"),
        ("Observation?_elements=id", "_elements says how"),
    ] {
        let told = refused(&[value]);
        assert!(told.starts_with("_typeFilter") && told.contains(part), "{value}: {told}");
    }
    let long = format!("Observation?code={}", "x".repeat(MOST_BYTES));
    assert!(refused(&[&long]).contains("65536 is the most"));
    assert!(refused(&[&"Observation?code=x,".repeat(MOST_SEARCHES + 1)]).contains("100"));
    let many = format!("Observation?code={}", "x,".repeat(10_000) + "x");
    assert!(refused(&[&many]).contains("values"));
}

#[test]
fn leniently_what_is_not_done_is_ignored_and_named() {
    let value = "Observation?status=final&color=red&_sort=_id&subject.name=x";
    let (lenient, ignored) = read(&[value], true).expect("a filter");
    assert_eq!(lenient, filters(&["Observation?status=final"]));
    let names = ["_sort", "color", "subject.name"].map(|n| format!("_typeFilter=Observation?{n}"));
    assert_eq!(ignored, names);
    for wrong in ["Observation?date=x", "Observation?code:odd=x", "Thing?a=b"] {
        assert!(read(&[wrong], true).is_err(), "{wrong}");
    }
}
