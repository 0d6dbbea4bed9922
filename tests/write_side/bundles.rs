//! Batches and transactions.

use serde_json::{Value, json};

use crate::app::{App, LIMIT, patient, request};

#[tokio::test]
async fn a_batch_does_what_it_can() {
    let app = App::start().await;
    app.put("/fhir/Patient/old", &patient("old", "A")).await;
    let mut entries = vec![
        json!({"request": request("GET", "Patient/old")}),
        json!({"request": request("GET", "Patient/none")}),
        json!({"request": request("DELETE", "Patient?identifier=1")}),
        json!({"resource": {"resourceType": "Patent"}, "request": request("POST", "Patient")}),
        json!({"resource": patient("x", "B"), "request": request("POST", "Patient")}),
        json!({"resource": patient("x", "B"), "request": request("PUT", "Patient/y")}),
        json!({"resource": patient("x", "B"), "request": request("PUT", "Patient/x")}),
        json!({"request": request("DELETE", "Patient/never")}),
        json!({"request": request("GET", "Patent/1")}),
        json!({"request": {"method": "GET", "url": "Patient/old", "ifNoneMatch": "W/\"1\""}}),
        json!("?"),
    ];
    let expected =
        ["200", "404", "400", "400", "201", "400", "201", "204", "404", "304", "400"].to_vec();
    let many = (0..200).map(|n| {
        let id = format!("n{n}");
        json!({"resource": patient(&id, "N"), "request": request("PUT", &format!("Patient/{id}"))})
    });
    entries.extend(many);
    let answer = app.bundle("batch", entries.into()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let bundle = answer.json();
    assert_eq!(bundle["type"], "batch-response");
    let responses = bundle["entry"].as_array().expect("entries");
    let status = |entry: &Value| {
        entry["response"]["status"].as_str().expect("a status").split(' ').next().map(str::to_owned)
    };
    let statuses: Vec<_> = responses.iter().filter_map(status).collect();
    assert_eq!(statuses[..11], expected);
    assert!(statuses[11..].iter().all(|status| status == "201") && statuses.len() == 211);
    assert_eq!(responses[0]["resource"]["id"], "old");
    assert_eq!(responses[210]["response"]["location"], "Patient/n199/_history/1");
    let issue = &responses[2]["response"]["outcome"]["issue"][0];
    assert_eq!(issue["code"], "not-supported");
    assert_eq!(issue["expression"][0], "Bundle.entry[2].request.url");
    assert_eq!(responses[6]["response"]["etag"], "W/\"1\"");
    assert_eq!(app.get("/fhir/Patient/n199").await.status, 200);
    app.stop().await;
}

/// What a batch reads is bounded like what it writes; what is left out says so.
#[tokio::test]
async fn a_batch_reads_no_more_than_it_may_write() {
    let app = App::start().await;
    let mut large = patient("large", "A");
    large["name"][0]["family"] = "x".repeat(LIMIT / 4).into();
    app.put("/fhir/Patient/large", &large).await;
    let read = json!({"request": request("GET", "Patient/large")});
    let write = json!({"resource": patient("w", "B"), "request": request("PUT", "Patient/w")});
    let entries: Vec<_> = std::iter::repeat_n(read, 1000).chain([write]).collect();
    let answer = app.bundle("batch", entries.into()).await;
    assert_eq!(answer.status, 200);
    let bundle = answer.json();
    let responses = bundle["entry"].as_array().expect("entries");
    let is = |entry: &Value, status: &str| {
        entry["response"]["status"].as_str().is_some_and(|said| said.starts_with(status))
    };
    let (last, reads) = responses.split_last().expect("entries");
    assert!(is(last, "201"), "{last}");
    let given = reads.iter().filter(|entry| is(entry, "200")).count();
    // Some are under way at once.
    assert!((5..100).contains(&given), "{given}");
    let refused = reads.iter().filter(|entry| is(entry, "413"));
    assert_eq!(refused.clone().count() + given, 1000);
    for entry in refused {
        assert_eq!(entry["response"]["outcome"]["issue"][0]["code"], "too-costly");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_transaction_links_its_entries_in_both_directions() {
    let app = App::start().await;
    let (a, b) = (
        "urn:uuid:77e01fab-3e19-4e1c-aa99-8d513f25aab7",
        "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0",
    );
    let entries = json!([
        {"fullUrl": b, "resource": {"resourceType": "Observation", "status": "final", "subject": {"reference": a}, "hasMember": [{"reference": "Observation/else"}]}, "request": request("POST", "Observation")},
        {"fullUrl": a, "resource": {"resourceType": "Patient", "identifier": [{"value": a}]}, "request": request("POST", "Patient")},
        {"resource": {"resourceType": "Provenance", "id": "pr", "target": [{"reference": a}, {"reference": b}]}, "request": request("PUT", "Provenance/pr")},
        {"request": request("DELETE", "Patient/never")},
    ]);
    let answer = app.bundle("transaction", entries).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let bundle = answer.json();
    assert_eq!(bundle["type"], "transaction-response");
    let path = |entry: usize| {
        let location = bundle["entry"][entry]["response"]["location"].as_str().expect("a location");
        location.trim_end_matches("/_history/1").to_owned()
    };
    let statuses: Vec<_> =
        (0..4).map(|entry| bundle["entry"][entry]["response"]["status"].clone()).collect();
    assert_eq!(statuses, ["201 Created", "201 Created", "201 Created", "204 No Content"]);
    let observation = app.get(&format!("/fhir/{}", path(0))).await.json();
    assert_eq!(observation["subject"]["reference"], path(1));
    assert_eq!(observation["hasMember"][0]["reference"], "Observation/else");
    let patient = app.get(&format!("/fhir/{}", path(1))).await.json();
    assert_eq!(patient["identifier"][0]["value"], a);
    let provenance = app.get("/fhir/Provenance/pr").await.json();
    assert_eq!(provenance["target"], json!([{"reference": path(1)}, {"reference": path(0)}]));
    app.stop().await;
}

#[tokio::test]
async fn a_transaction_is_all_or_nothing_and_says_which_entry() {
    let app = App::start().await;
    app.put("/fhir/Patient/old", &patient("old", "A")).await;
    let good =
        || json!({"resource": patient("new", "B"), "request": request("PUT", "Patient/new")});
    let full_url = |url: &str| json!({"fullUrl": url, "resource": {"resourceType": "Basic"}, "request": request("POST", "Basic")});
    let conditional =
        json!({"resourceType": "Basic", "subject": {"reference": "Patient?identifier=1"}});
    let cases = [
        (
            json!({"resource": patient("old", "B"), "request": {"method": "PUT", "url": "Patient/old", "ifMatch": "W/\"7\""}}),
            412,
            "",
        ),
        (
            json!({"request": {"method": "DELETE", "url": "Patient/none", "ifMatch": "W/\"1\""}}),
            412,
            "",
        ),
        (
            json!({"resource": patient("old", "B"), "request": {"method": "PUT", "url": "Patient/old", "ifNoneMatch": "*"}}),
            412,
            "",
        ),
        (
            json!({"resource": patient("old", "B"), "request": {"method": "PUT", "url": "Patient/old", "ifMatch": "7"}}),
            400,
            ".request",
        ),
        (good(), 400, ".request.url"),
        (json!({"request": request("DELETE", "Patient/new")}), 400, ".request.url"),
        (full_url("urn:uuid:1"), 400, ".fullUrl"),
        (json!({"request": request("GET", "Patient/old")}), 400, ".request.method"),
        (json!({"request": request("PATCH", "Patient/old")}), 400, ".request.method"),
        (json!({"request": request("DELETE", "Patient?name=x")}), 400, ".request.url"),
        (
            json!({"resource": patient("o", "B"), "request": request("PUT", "Patient?name=x")}),
            400,
            ".request.url",
        ),
        (json!({"resource": conditional, "request": request("POST", "Basic")}), 400, ".resource"),
        (
            json!({"resource": {"resourceType": "Basic"}, "request": {"method": "POST", "url": "Basic", "ifNoneExist": "a=b"}}),
            400,
            ".request.ifNoneExist",
        ),
        (
            json!({"resource": {"resourceType": "Basic"}, "request": request("POST", "Patient")}),
            400,
            ".resource.resourceType",
        ),
        (
            json!({"resource": patient("o", "B"), "request": request("PUT", "Patient/q")}),
            400,
            ".resource.id",
        ),
        (
            json!({"resource": {"resourceType": "Basic"}, "request": request("PUT", "Basic/1")}),
            400,
            ".resource.id",
        ),
        (
            json!({"resource": {"resourceType": "Patent"}, "request": request("POST", "Patent")}),
            400,
            ".resource",
        ),
        (json!({"request": request("POST", "Patient")}), 400, ".resource"),
        (json!({"resource": {"resourceType": "Basic"}}), 400, ".request"),
        (json!({"request": request("DELETE", "Patient")}), 400, ".request.method"),
        (json!({"request": request("DELETE", "Patient/a/b")}), 400, ".request.url.id"),
        (json!(7), 400, ""),
    ];
    for (bad, status, at) in cases {
        let what = bad.to_string();
        let answer = app.bundle("transaction", json!([full_url("urn:uuid:1"), good(), bad])).await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text);
        let (_, why, expression) = answer.issue();
        assert_eq!(expression, format!("Bundle.entry[2]{at}"), "{what}: {why}");
        assert!(why.starts_with(&expression), "{why}");
        assert_eq!(app.get("/fhir/Patient/new").await.status, 404, "{what}");
        assert_eq!(app.get("/fhir/Patient/old").await.header("etag"), Some("W/\"1\""), "{what}");
    }
    let empty = app.bundle("transaction", json!([])).await;
    assert_eq!(empty.json(), json!({"resourceType": "Bundle", "type": "transaction-response"}));
    app.stop().await;
}
