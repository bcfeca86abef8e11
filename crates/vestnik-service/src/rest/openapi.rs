//! The OpenAPI document, written from the table that calls are dispatched with.

use serde_json::{Map, Value, json};

use super::{Field, Kind, Operation, channel, configuration, operations};

/// The document: every operation with its fields, its result and an example.
///
/// # Panics
/// Never: schemas and examples are JSON, which a test sees to.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for operation in operations() {
        paths
            .insert(format!("/module/{}", operation.name), json!({ "post": described(operation) }));
    }
    paths.insert("/module/batch".to_owned(), json!({ "post": batch() }));
    let mut schemas = Map::new();
    for (name, schema) in configuration::SCHEMAS.iter().chain(channel::SCHEMAS) {
        schemas.insert((*name).to_owned(), parsed(schema));
    }
    schemas.insert(
        "Error".to_owned(),
        json!({
            "type": "object",
            "required": ["error", "error_description"],
            "properties": {
                "error": { "type": "string" },
                "error_description": { "type": "string" },
            },
        }),
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Vestnik, the module \"Push and Pull\" as a service",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Operations for back ends in any language. Names of fields are taken in any case, with or without underscores; lists and objects also as texts that hold JSON; bodies also as forms.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": "A secret of a back end, or a token of a user." },
                "signature": { "type": "apiKey", "in": "query", "name": "signature", "description": "HMAC of the body with the tenant's signature key, in lower-case hex, beside `hostId`." },
            },
        },
        "security": [{ "bearer": [] }, { "signature": [] }],
    })
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).expect("schemas and examples are JSON")
}

fn described(operation: &Operation) -> Value {
    // What depends on servers and devices that may not be there has no example that is always accepted.
    let example =
        if operation.example.is_empty() { Value::Null } else { parsed(operation.example) };
    json!({
        "operationId": operation.name,
        "tags": [operation.group],
        "summary": operation.about,
        "x-right": operation.right.name(),
        "x-scope": scope(operation.name),
        "requestBody": {
            "required": operation.fields.iter().any(|field| field.is_required),
            "content": {
                "application/json": {
                    "schema": input_schema(operation.fields),
                    "example": example,
                },
                "application/x-www-form-urlencoded": { "schema": { "type": "object" } },
            },
        },
        "responses": responses(&parsed(operation.result)),
    })
}

/// The scope that Bitrix gives a method: what a gateway for applications would ask for.
fn scope(name: &str) -> &'static str {
    match name {
        "pull.config.get" | "pull.channel.public.get" | "pull.channel.public.list" => {
            "pull_channel"
        }
        name if name.starts_with("mobile.") => "mobile",
        _ => "pull",
    }
}

fn responses(result: &Value) -> Value {
    let error = json!({
        "description": "What is wrong.",
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
    });
    json!({
        "200": {
            "description": "The result.",
            "content": { "application/json": { "schema": {
                "type": "object",
                "required": ["result"],
                "properties": { "result": result },
            } } },
        },
        "default": error,
    })
}

fn input_schema(fields: &[Field]) -> Value {
    let mut properties = Map::new();
    for field in fields {
        let mut schema = match field.kind {
            Kind::Text => json!({ "type": ["string", "number"] }),
            Kind::Number => json!({ "type": ["integer", "string"] }),
            Kind::Switch => json!({ "type": ["boolean", "string", "integer"] }),
            Kind::List => json!({ "type": ["array", "string", "integer"] }),
            Kind::Object => json!({ "type": ["object", "array", "string"] }),
            Kind::Any => json!({}),
        };
        schema["description"] = field.about.into();
        properties.insert(field.name.to_owned(), schema);
    }
    let required: Vec<&str> =
        fields.iter().filter(|field| field.is_required).map(|field| field.name).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn batch() -> Value {
    json!({
        "operationId": "batch",
        "tags": ["Batch"],
        "summary": "Runs up to 50 calls one after another: `cmd` is an object of `operation?query`, or of `{method, params}`, by name; or a list of them.",
        "requestBody": {
            "required": true,
            "content": { "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["cmd"],
                    "properties": {
                        "cmd": { "type": ["object", "array", "string"] },
                        "halt": { "type": ["boolean", "string", "integer"], "description": "The first failure ends the rest." },
                    },
                },
                "example": { "halt": 0, "cmd": { "time": "server.time", "config": "pull.config.get?USER_ID=1" } },
            } },
        },
        "responses": responses(&json!({
            "type": "object",
            "required": ["result", "result_error", "result_total", "result_next", "result_time"],
        })),
    })
}
