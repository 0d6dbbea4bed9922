//! `patient`: of whose compartments alone an export is to be. Pure.

use std::collections::BTreeSet;

use axum::http::StatusCode;

use super::shown;
use crate::{
    error::ApiError,
    fhir::{outcome::IssueType, resource::is_id},
    plan::Members,
};

/// How many there may be.
const MOST: usize = 1_000;

/// Reads the values of a request: lists with commas of ids, `Patient/id`, or such URLs of this
/// server's own. `None`: there are none.
pub(super) fn parse(values: &[String], base: Option<&str>) -> Result<Option<Members>, ApiError> {
    let mut ids = BTreeSet::<Box<str>>::new();
    for text in values.iter().flat_map(|value| value.split(',')).map(str::trim) {
        let local = base.and_then(|base| text.strip_prefix(base)).unwrap_or(text);
        let id = local.strip_prefix("Patient/").unwrap_or(local);
        if !is_id(id) {
            return Err(ApiError::invalid(
                "patient",
                format!("patient={} names no patient here. Send Patient/id.", shown(text)),
            ));
        }
        ids.insert(id.into());
    }
    if ids.len() > MOST {
        let text = format!(
            "patient names {} patients, and {MOST} is the most. Make a Group of them, and ask for \
             its export.",
            ids.len()
        );
        let error = ApiError::new(StatusCode::BAD_REQUEST, IssueType::TooLong, text);
        return Err(error.at("patient"));
    }
    Ok((!values.is_empty()).then(|| Members::fixed(ids)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<Vec<String>, ApiError> {
        let values: Vec<_> = values.iter().map(|value| (*value).to_owned()).collect();
        let members = parse(&values, Some("http://here/fhir/"))?;
        let mut ids: Vec<_> = members.iter().flat_map(Members::ids).map(str::to_owned).collect();
        ids.sort();
        Ok(ids)
    }

    #[test]
    fn patients_are_named_in_some_ways() {
        let names = ["Patient/b,a", "http://here/fhir/Patient/c", "Patient/a"];
        assert_eq!(read(&names).expect("patients"), ["a", "b", "c"]);
        assert_eq!(read(&[]).expect("none"), [""; 0]);
        let unlike = ["", "a,,b", "Group/a", "http://there/fhir/Patient/c", "Patient/a/b", "ü"];
        for wrong in unlike {
            assert_eq!(read(&[wrong]).expect_err(wrong).expression, ["patient"]);
        }
        let many: Vec<_> = (0..=MOST).map(|n| n.to_string()).collect();
        assert!(read(&[&many.join(",")]).expect_err("too many").diagnostics.contains("Group"));
    }
}
