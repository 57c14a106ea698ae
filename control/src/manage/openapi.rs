//! The API described for programs (OpenAPI 3.1), made of the table of operations and the types they name.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::operations::{Method, OPERATIONS, Operation, Role};
use super::problem::{MEDIA_TYPE, Problem};

/// The document. It is served at `/openapi.json`, and `docs/openapi.json` is the same.
pub fn document() -> Value {
    let settings = || SchemaSettings::draft2020_12().with(|it| it.definitions_path = "/components/schemas".into());
    // What is read may leave out what has a default; what is written has it all.
    let mut given = settings().for_deserialize().into_generator();
    let mut told = settings().for_serialize().into_generator();
    let problem = told.subschema_for::<Problem>().to_value();
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let place = paths.entry(operation.path).or_insert_with(|| json!({}));
        place[operation.method.name().to_lowercase()] = described(operation, &mut given, &mut told, &problem);
    }
    paths.insert(
        "/metrics".into(),
        plain("Metrics", "Figures for Prometheus (OpenMetrics 1.0).", "application/openmetrics-text"),
    );
    paths.insert("/openapi.json".into(), plain("OpenApi", "This document.", "application/json"));
    let mut schemas = given.take_definitions(true);
    schemas.extend(told.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "P-SHIM6",
            "summary": "Looks after a running pshim6d.",
            "description": "HTTP/1.1 over Unix sockets: `box.control_socket` for operators, `manage.read_socket` for those who may look; \
                            and over TLS with certificates on both sides (`manage.listen`). \
                            Fields are added; none is renamed or given another meaning within `/v1`.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn described(operation: &Operation, given: &mut SchemaGenerator, told: &mut SchemaGenerator, problem: &Value) -> Value {
    let answer = (operation.answer)(told).to_value();
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "x-role": match operation.role { Role::Read => "read", Role::Operate => "operate" },
        "responses": {
            "200": { "description": "Done.", "content": { "application/json": { "schema": answer } } },
            "default": { "description": "Not done.", "content": { MEDIA_TYPE: { "schema": problem } } },
        },
    });
    let Some(arguments) = operation.arguments else { return described };
    let schema = arguments(given).to_value();
    match operation.method {
        Method::Post => {
            described["requestBody"] =
                json!({ "required": true, "content": { "application/json": { "schema": schema } } });
        }
        Method::Get => described["parameters"] = parameters(&schema, given),
    }
    described
}

/// The fields of a type as parameters of a query.
fn parameters(schema: &Value, given: &SchemaGenerator) -> Value {
    let name = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let definition = given.definitions().get(name).cloned().unwrap_or_default();
    let required = |field: &str| definition["required"].as_array().is_some_and(|all| all.iter().any(|it| it == field));
    let parameter = |(field, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        let description = schema.as_object_mut().and_then(|it| it.remove("description")).unwrap_or_default();
        json!({ "name": field, "in": "query", "required": required(field), "description": description, "schema": schema })
    };
    definition["properties"].as_object().into_iter().flatten().map(parameter).collect()
}

fn plain(id: &str, summary: &str, media_type: &str) -> Value {
    json!({ "get": {
        "operationId": id,
        "summary": summary,
        "x-role": "read",
        "responses": { "200": { "description": "Done.", "content": { media_type: {} } } },
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `PSHIM6_REGENERATE=1 cargo test -p control openapi` writes it.
    #[test]
    fn the_document_in_docs_is_the_one_that_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        let made = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        if std::env::var_os("PSHIM6_REGENERATE").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(made == kept, "docs/openapi.json is another document; PSHIM6_REGENERATE=1 writes it anew");
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_is_described() {
        let document = document();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        for operation in OPERATIONS {
            let described = &document["paths"][operation.path][operation.method.name().to_lowercase()];
            assert_eq!(described["operationId"], operation.id);
        }
        let limit = &document["paths"]["/v1/contexts"]["get"]["parameters"];
        assert!(limit.as_array().unwrap().iter().any(|it| it["name"] == "limit"), "{limit}");
    }
}
