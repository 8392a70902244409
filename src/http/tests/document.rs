//! The OpenAPI document agrees with the routes, their inputs and their answers.

use serde_json::{Value, json};

use super::support::ApiFixture;
use crate::http::ApiLimits;
use crate::http::openapi::document;
use crate::http::route::table;

fn doc() -> Value {
    document(&table(), ApiLimits { max_body: 100_000, max_batch: 3 })
}

/// A validator for a schema of the document.
pub fn validator(doc: &Value, schema: &Value) -> jsonschema::Validator {
    let whole = json!({ "components": doc["components"], "allOf": [schema] });
    jsonschema::validator_for(&whole).unwrap_or_else(|error| panic!("{error}: {schema}"))
}

#[test]
fn every_route_is_in_the_document_and_nothing_else() {
    let doc = doc();
    let table = table();
    let described: usize = doc["paths"].as_object().unwrap().values().map(|item| item.as_object().unwrap().len()).sum();
    assert_eq!(described, table.len());
    for route in &table {
        let operation = &doc["paths"][route.path][route.method.as_str().to_ascii_lowercase()];
        assert_eq!(operation["operationId"], route.name);
        assert!(route.summary.ends_with('.') && route.path.starts_with("/api/v1/"), "{}", route.name);
        for name in route.path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()) {
            assert!(
                route.params.iter().any(|param| param.name == name && param.kind.in_path()),
                "{}: {name}",
                route.path
            );
        }
    }
}

#[test]
fn the_page_for_users_has_every_route() {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md"));
    let routes = table();
    let mut known: Vec<_> = routes.iter().map(|route| format!("### {} {}", route.method, route.path)).collect();
    known.extend(["### GET /live", "### GET /ready", "### GET /metrics"].map(str::to_owned));
    // Other headings of this level, such as that of publishing once, name no path.
    let written: Vec<_> = page.lines().filter(|line| line.starts_with("### ") && line.contains(" /")).collect();
    for heading in &known {
        assert!(written.contains(&heading.as_str()), "{heading} is missing");
    }
    for heading in written {
        assert!(known.iter().any(|known| known == heading), "{heading} is not a route");
    }
    for route in &routes {
        let heading = format!("### {} {}\n", route.method, route.path);
        let section = page.split_once(&heading).unwrap().1.split("\n#").next().unwrap();
        for param in route.params.iter().filter(|param| !param.kind.in_path()) {
            assert!(section.contains(&format!("`{}`", param.name)), "{}: {}", route.path, param.name);
        }
    }
}

#[test]
fn every_schema_compiles_and_every_reference_leads_somewhere() {
    fn walk(doc: &Value, value: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                    assert!(doc.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
                }
                if let Some(schema) = members.get("schema") {
                    validator(doc, schema);
                }
                members.values().for_each(|member| walk(doc, member));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(doc, item)),
            _ => {}
        }
    }
    let doc = doc();
    walk(&doc, &doc);
}

#[tokio::test]
async fn examples_are_taken_and_answers_are_as_described() {
    let fixture = ApiFixture::new();
    let doc = doc();
    for route in table() {
        let path = route.path.replace("{socketId}", "s1").replace("{room}", "r").replace("{userId}", "ada");
        let body = route.example.unwrap_or_default();
        let reply = fixture.send(route.method.as_str(), &path, body).await;
        let operation = &doc["paths"][route.path][route.method.as_str().to_ascii_lowercase()];
        let described = &operation["responses"][reply.status.to_string()];
        assert!(!described.is_null(), "{} answered {reply:?}", route.name);
        if reply.status == 404 {
            // No contract keeps a history for the room of this name.
            assert_eq!(route.name, "getHistory");
        } else {
            assert_eq!(reply.status, route.success.0, "{}: {reply:?}", route.name);
        }
        if reply.status != 204 {
            let schema = &described["content"]["application/json"]["schema"];
            let errors: Vec<_> =
                validator(&doc, schema).iter_errors(&reply.json()).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{}: {errors:?} in {reply:?}", route.name);
        }
        if let Some(example) = route.example() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            assert!(validator(&doc, schema).is_valid(&example), "{}", route.name);
        }
    }
}
