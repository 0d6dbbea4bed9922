//! `POST $export`: the parameters in a body.

use support::{self, App, client, stream::EventStream};

use crate::tools::{history, observed, parameters, posted, refusal};

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_read_or_refused() {
    let bench = support::embedded();
    for (id, status) in [("a", "final"), ("b", "preliminary")] {
        observed(&bench, id, status, "1").await;
    }
    let app = App::start(bench.store.clone()).await;
    let search = ("_typeFilter", "valueString", "Observation?status=final,amended");
    let shape = ("_elements", "valueString", "valueString");
    let body = parameters(&[search, shape]);
    for path in ["/fhir/$export", "/fhir/Observation/$export", "/fhir/%24export?_type=Observation"]
    {
        let answer = posted(&app, path, "*/*", &body).await.text().await.expect("lines");
        assert_eq!(answer.lines().count(), 1, "{path}: {answer}");
        assert!(answer.contains("SUBSETTED") && !answer.contains("subject"), "{answer}");
        let mut stream = EventStream::of(posted(&app, path, "text/event-stream", &body).await);
        assert_eq!(history(&mut stream).await, ["Observation a 1"]);
    }
    let empty = client().post(app.url("/fhir/$export")).send().await.expect("an answer");
    assert_eq!(empty.text().await.expect("lines").lines().count(), 2);
    for (body, status, part) in [
        ("{", 400, "not JSON"),
        ("[]", 400, "object"),
        (r#"{"resourceType":"Patient"}"#, 400, "Send a Parameters"),
        (r#"{"resourceType":"Parameters","parameter":[{"name":"_type"}]}"#, 400, "parameter[0]"),
        (
            r#"{"resourceType":"Parameters","parameter":[{"name":"x","valueString":"y"}]}"#,
            400,
            "'x' is not known",
        ),
        (
            r#"{"resourceType":"Parameters","parameter":[{"name":"patient","valueString":"1"}]}"#,
            400,
            "/Patient/$export",
        ),
    ] {
        let request = client().post(app.url("/fhir/$export")).body(body);
        let request = request.header("content-type", "application/fhir+json");
        let (given, told) = refusal(request.send().await.expect("an answer")).await;
        assert!(given == status && told.contains(part), "{body}: {given} {told}");
    }
    let form = client().post(app.url("/fhir/$export")).body("_type=Patient");
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(refusal(form.send().await.expect("an answer")).await.0, 415);
}
