//! Whatever is stored at a place: narrowed is found what is found without.

use mongodb::bson::{Bson, doc};

use super::{agrees, index, values::documents};
use crate::tools::{Bench, bench};

/// In each state of the indexes.
async fn agrees_with_indexes(bench: &Bench, name: &str, path: &str, queries: &[String]) {
    let collection = bench.collection(name);
    let fruitful = agrees(bench, name, queries).await;
    assert!(fruitful * 2 > queries.len(), "{fruitful} of {} find anything", queries.len());
    index(&collection, doc! {path: 1}).await;
    agrees(bench, name, queries).await;
    index(&collection, doc! {path: -1, "_id": 1}).await;
    agrees(bench, name, queries).await;
}

fn of_each(start: &str, texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| format!("{start}{}", text.replace('|', "\\|"))).collect()
}

#[tokio::test]
async fn references_of_any_shape_are_found() {
    let Some(bench) = bench().await else { return };
    let all = documents(&["subject", "reference"]);
    bench.collection("Observation").insert_many(all).await.expect("inserted");
    let mut queries = of_each("subject=", &["Patient/1", "1", "Patient/12", "Group/1"]);
    queries.extend(of_each("patient=", &["Patient/1", "1", "http://there/fhir/Patient/1"]));
    queries.extend(of_each("subject:Patient=", &["1", "1,12"]));
    queries.push("subject=Patient/1/_history/2".into());
    queries.push("subject=http://here/fhir/Patient/1,Group/1".into());
    agrees_with_indexes(&bench, "Observation", "subject.reference", &queries).await;
}

#[tokio::test]
async fn codes_of_any_shape_are_found() {
    let Some(bench) = bench().await else { return };
    let all = documents(&["code", "coding", "code"]);
    bench.collection("Observation").insert_many(all).await.expect("inserted");
    let texts = [
        "male",
        "Patient/1",
        "0123456789abcdef01234567",
        "2024-01-02T03:04:05.678Z",
        "MinKey",
        "TUFMRQ==",
        "http://x/P|2",
        "f()",
        "/Patient\\\\/1/",
        "1",
        "true",
        "ü",
    ];
    let mut queries = of_each("code=", &texts);
    queries.push("code=male,1,|true".into());
    agrees_with_indexes(&bench, "Observation", "code.coding.code", &queries).await;
}

#[tokio::test]
async fn canonicals_and_booleans_of_any_shape_are_found() {
    let Some(bench) = bench().await else { return };
    bench
        .collection("Patient")
        .insert_many(documents(&["meta", "profile"]))
        .await
        .expect("inserted");
    let mut queries = of_each("_profile=", &["http://x/P", "http://x/Pa", "MinKey", "ü"]);
    queries.extend(["_profile=http://x/P|2", "_profile:below=http://x/P"].map(String::from));
    agrees_with_indexes(&bench, "Patient", "meta.profile", &queries).await;
    let active = documents(&["active"]);
    bench.collection("Practitioner").insert_many(active).await.expect("inserted");
    let queries = ["active=true", "active=false", "active=true,false"].map(String::from);
    agrees_with_indexes(&bench, "Practitioner", "active", &queries).await;
}

#[tokio::test]
async fn instants_of_any_shape_are_found() {
    let Some(bench) = bench().await else { return };
    let all = documents(&["meta", "lastUpdated"]);
    bench.collection("Patient").insert_many(all).await.expect("inserted");
    let at = ["", "ge", "gt", "lt", "le", "sa", "eb", "ap"];
    let dates = ["2024-01-02T03:04:05.678Z", "2024-01-02", "2023-11"];
    let queries = at.iter().flat_map(|at| dates.map(|date| format!("_lastUpdated={at}{date}")));
    agrees_with_indexes(&bench, "Patient", "meta.lastUpdated", &queries.collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn ids_are_found_by_their_keys() {
    let Some(bench) = bench().await else { return };
    let all = documents(&["gender"]);
    let some: Vec<_> = all.iter().filter_map(|document| document.get("_id")).step_by(3).collect();
    let text = |id: &&Bson| match id {
        Bson::String(id) => Some(id.clone()),
        Bson::ObjectId(id) => Some(id.to_hex()),
        _ => None,
    };
    let ids: Vec<String> = some.iter().filter_map(text).collect();
    bench.collection("Patient").insert_many(all).await.expect("inserted");
    let queries = [format!("_id={}", ids.join(",")), format!("_id={}&gender=male", ids.join(","))];
    agrees(&bench, "Patient", &queries).await;
}
