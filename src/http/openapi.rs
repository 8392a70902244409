//! `GET /api/v1/openapi.json`: the API as an OpenAPI 3.1 document, generated from the table of routes.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use schemars::transform::{ReplaceUnevaluatedProperties, RestrictFormats};
use serde_json::{Map, Value, json};

use super::answer::{ApiError, ApiResponse, ErrorResponse};
use super::route::{Access, ApiCall, Route};
use super::state::ApiLimits;

/// Answers a request for the OpenAPI document.
pub async fn answer(call: ApiCall) -> Result<ApiResponse, ApiError> {
    ApiResponse::ok(call.api.document())
}

/// The OpenAPI document of the routes, with the configured limits.
pub fn document(routes: &[Route], limits: ApiLimits) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        settings.transforms.push(Box::new(RestrictFormats::default()));
        settings.transforms.push(Box::new(ReplaceUnevaluatedProperties::default()));
    });
    let mut generator = SchemaGenerator::new(settings);
    let error = generator.subschema_for::<ErrorResponse>().to_value();
    let mut paths = Map::new();
    for route in routes {
        let operation = operation(route, &mut generator, &error, limits);
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "roomcast",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Publishes events to the clients of a roomcast cluster, and shows which clients are connected.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer", "description": "A key of `api.keys`." } },
            "schemas": generator.take_definitions(true),
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator, error: &Value, limits: ApiLimits) -> Value {
    let mut operation = json!({
        "operationId": route.name,
        "summary": route.summary,
        "responses": responses(route, generator, error),
    });
    if route.access != Access::Open {
        operation["security"] = json!([{ "key": [] }]);
    }
    if !route.params.is_empty() {
        operation["parameters"] = route.params.iter().map(parameter).collect();
    }
    if let Some(request) = route.request {
        let mut schema = request(generator).to_value();
        bound_batches(&mut schema, limits.max_batch);
        let mut media = json!({ "schema": schema });
        if let Some(example) = route.example() {
            media["example"] = example;
        }
        operation["requestBody"] = json!({ "required": true, "content": { "application/json": media } });
    }
    operation
}

fn parameter(param: &super::params::Param) -> Value {
    let in_path = param.kind.in_path();
    json!({
        "name": param.name,
        "in": if in_path { "path" } else { "query" },
        "required": in_path,
        "description": param.doc,
        "schema": param.kind.schema(),
    })
}

fn responses(route: &Route, generator: &mut SchemaGenerator, error: &Value) -> Value {
    let (status, means, schema) = route.success;
    let mut success = json!({ "description": means });
    if let Some(schema) = schema {
        success["content"] = json!({ "application/json": { "schema": schema(generator).to_value() } });
    }
    let mut responses = Map::from_iter([(status.to_string(), success)]);
    for (status, means) in failures(route) {
        let mut failure = json!({ "description": means, "content": { "application/json": { "schema": error } } });
        match status {
            401 => failure["headers"] = json!({ "WWW-Authenticate": { "schema": { "const": "Bearer" } } }),
            429 | 503 => {
                let seconds =
                    json!({ "description": "Seconds to wait.", "schema": { "type": "integer", "minimum": 1 } });
                failure["headers"] = json!({ "Retry-After": seconds });
            }
            _ => {}
        }
        responses.insert(status.to_string(), failure);
    }
    Value::Object(responses)
}

/// The failures that a route can answer.
fn failures(route: &Route) -> Vec<(u16, &'static str)> {
    let has_input = route.request.is_some() || !route.params.is_empty();
    let body = route.request.is_some();
    let all = [
        (400, "Malformed: not JSON, or not percent-encoded UTF-8.", true),
        (401, "No key, or not a valid one.", route.access != Access::Open),
        (403, "The key is limited to other contracts.", route.access != Access::Open),
        (404, "The requested thing does not exist.", route.may_miss),
        (408, "The body did not arrive in time.", body),
        (413, "The body is larger than `api.max_body`.", body),
        (415, "The declared type of the body is not JSON.", body),
        (
            422,
            "The body or a parameter is invalid; `details` names every mistake.",
            has_input || route.access == Access::Open,
        ),
        (429, "Too often.", body),
        (503, "The node is overloaded, or Redis is away; try again later.", true),
    ];
    all.into_iter().filter(|(.., may)| *may).map(|(status, means, _)| (status, means)).collect()
}

/// Puts the configured maximum size of a batch into the schema.
fn bound_batches(schema: &mut Value, max: usize) {
    match schema {
        Value::Object(members) => {
            if let (true, Some(bound)) = (members.contains_key("minItems"), members.get_mut("maxItems")) {
                *bound = max.into();
            }
            members.values_mut().for_each(|member| bound_batches(member, max));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| bound_batches(item, max)),
        _ => {}
    }
}
