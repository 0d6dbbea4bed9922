//! The rules' own tests leave none out.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{one, recorded, text};

/// Those for which a test has what is wanted, as the second says.
fn tested(of: &str, name: &str, is_wanted: fn(&Value) -> bool) -> BTreeSet<String> {
    let tests = one("prometheus/rules_test.yml")["tests"].as_array().expect("tests").clone();
    let cases = tests.iter().filter_map(|test| test[of].as_array()).flatten();
    let wanted = cases.filter(|case| is_wanted(case));
    wanted.map(|case| case[name].as_str().expect("a name").to_owned()).collect()
}

/// That an alert never fires, or always, would be seen.
#[test]
fn each_alert_is_seen_to_fire_and_not_to() {
    let rules = text("prometheus/rules.yml");
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: BTreeSet<_> = alerts.map(str::to_owned).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    let fires = |case: &Value| case["exp_alerts"].as_array().is_some_and(|all| !all.is_empty());
    let rests = |case: &Value| case["exp_alerts"].as_array().is_none_or(Vec::is_empty);
    assert_eq!(tested("alert_rule_test", "alertname", fires), alerts);
    assert_eq!(tested("alert_rule_test", "alertname", rests), alerts);
}

#[test]
fn each_record_has_a_value() {
    let has_some = |case: &Value| case["exp_samples"].as_array().is_some_and(|all| !all.is_empty());
    let queries = tested("promql_expr_test", "expr", has_some);
    for record in recorded(&text("prometheus/rules.yml")) {
        assert!(queries.iter().any(|query| query.contains(&record)), "{record}");
    }
}
