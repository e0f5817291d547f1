//! Tells whether an object in the cluster is still what was applied, without writing and without knowing its schema.
//!
//! Two things are compared. The digest of the last applied configuration, kept in an annotation, tells that the wish
//! has not changed; comparing values would not do, since the API server rewrites some (a CPU of `0.5` is stored as
//! `500m`). The managed fields tell that nobody else has changed what we set: whoever changes or removes a field that
//! we own takes it from us, and only the API server writes that record. Fields that others added are theirs.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use crate::names::{APPLIED_ANNOTATION, MANAGER};

/// What identifies an object is owned by nobody.
const UNOWNED: [&str; 4] = ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"];

/// The SHA-256 of a value as JSON, whose keys come in one order.
pub(crate) fn digest_of(value: &Value) -> String {
    hex(digest(&SHA256, value.to_string().as_bytes()).as_ref())
}

/// Bytes as text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Puts the digest of a wished object into its annotations.
pub(crate) fn sign(desired: &mut Value) {
    let digest = digest_of(desired);
    if !desired["metadata"]["annotations"].is_object() {
        desired["metadata"]["annotations"] = json!({});
    }
    desired["metadata"]["annotations"][APPLIED_ANNOTATION] = Value::String(digest);
}

/// Whether applying `desired` (signed) would change nothing of `live`.
pub(crate) fn is_applied(live: &ObjectMeta, desired: &Value) -> bool {
    let digest = live.annotations.as_ref().and_then(|annotations| annotations.get(APPLIED_ANNOTATION));
    let wished = desired["metadata"]["annotations"][APPLIED_ANNOTATION].as_str();
    digest.map(String::as_str) == wished && owned_fields(live).is_some_and(|fields| owns(fields, desired, ""))
}

fn owned_fields(live: &ObjectMeta) -> Option<&Value> {
    let ours = live.managed_fields.iter().flatten().find(|entry| {
        entry.manager.as_deref() == Some(MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
    })?;
    ours.fields_v1.as_ref().map(|fields| &fields.0)
}

/// Whether the set of fields has every leaf of the value. An empty set is a leaf: owned with all that is in it.
fn owns(fields: &Value, value: &Value, path: &str) -> bool {
    let Some(fields) = fields.as_object() else { return false };
    if fields.is_empty() {
        return true;
    }
    match value {
        Value::Object(map) => map.iter().all(|(key, value)| {
            let path = format!("{path}/{key}");
            UNOWNED.contains(&path.as_str())
                || is_empty_list(value)
                || fields.get(&format!("f:{key}")).is_some_and(|fields| owns(fields, value, &path))
        }),
        Value::Array(items) => {
            items.iter().all(|item| item_fields(fields, item).is_some_and(|f| owns(f, item, path)))
        }
        _ => true,
    }
}

/// Of a list whose items are keyed each item is owned, and so nothing of an empty one.
fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

/// The fields of a list's item: under its value in a set, under its keys in a list that is keyed.
fn item_fields<'a>(fields: &'a Map<String, Value>, item: &Value) -> Option<&'a Value> {
    fields.iter().find_map(|(name, fields)| {
        let same = match name.split_at_checked(2)? {
            ("v:", value) => serde_json::from_str::<Value>(value).ok()? == *item,
            // A key that the item leaves out has its default there (a port's protocol).
            ("k:", keys) => serde_json::from_str::<Map<String, Value>>(keys)
                .ok()?
                .iter()
                .all(|(key, value)| item.get(key).is_none_or(|own| own == value)),
            _ => false,
        };
        same.then_some(fields)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(fields: &Value, desired: &Value) -> ObjectMeta {
        serde_json::from_value(json!({
            "name": "x",
            "annotations": desired["metadata"]["annotations"],
            "managedFields": [
                {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {}}},
                {"manager": MANAGER, "operation": "Apply", "fieldsV1": fields},
            ],
        }))
        .expect("metadata")
    }

    fn signed(mut desired: Value) -> Value {
        sign(&mut desired);
        desired
    }

    fn annotation() -> Value {
        json!({"f:annotations": {"f:compute.skytorch.dev/applied": {}}})
    }

    #[test]
    fn an_object_that_is_ours_is_applied() {
        let desired = signed(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "namespace": "n"},
            "spec": {"ports": [{"name": "session", "port": 7777}], "selector": {"a": "b"}},
        }));
        let fields = json!({
            "f:metadata": annotation(),
            "f:spec": {
                "f:ports": {"k:{\"port\":7777,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}},
                "f:selector": {},
            },
        });
        assert!(is_applied(&live(&fields, &desired), &desired));
    }

    #[test]
    fn a_changed_wish_is_not_applied() {
        let desired = signed(json!({"spec": {"a": 1}}));
        let fields = json!({"f:metadata": annotation(), "f:spec": {"f:a": {}}});
        let other = signed(json!({"spec": {"a": 2}}));
        assert!(!is_applied(&live(&fields, &desired), &other));
    }

    #[test]
    fn a_field_that_another_took_is_not_applied() {
        let desired = signed(json!({"spec": {"a": 1, "b": {"c": 2}}}));
        for fields in [json!({"f:a": {}}), json!({"f:b": {"f:c": {}}}), json!({"f:a": {}, "f:b": {"f:d": {}}})] {
            let fields = json!({"f:metadata": annotation(), "f:spec": fields});
            assert!(!is_applied(&live(&fields, &desired), &desired), "{fields}");
        }
    }

    #[test]
    fn an_item_that_another_took_is_not_applied() {
        let desired = signed(json!({"spec": {"ports": [{"port": 1}, {"port": 2}], "set": ["a", "b"]}}));
        let fields = |ports: Value, set: Value| json!({"f:metadata": annotation(), "f:spec": {"f:ports": ports, "f:set": set}});
        let ports = json!({"k:{\"port\":1}": {".": {}, "f:port": {}}, "k:{\"port\":2}": {".": {}, "f:port": {}}});
        let set = json!({"v:\"a\"": {}, "v:\"b\"": {}});
        assert!(is_applied(&live(&fields(ports.clone(), set.clone()), &desired), &desired));
        let fewer = json!({"k:{\"port\":1}": {".": {}, "f:port": {}}});
        assert!(!is_applied(&live(&fields(fewer, set), &desired), &desired));
        assert!(!is_applied(&live(&fields(ports, json!({"v:\"a\"": {}})), &desired), &desired));
    }

    #[test]
    fn an_empty_list_may_be_owned_by_nobody() {
        let desired = signed(json!({"spec": {"a": 1, "hostAliases": []}}));
        let fields = json!({"f:metadata": annotation(), "f:spec": {"f:a": {}}});
        assert!(is_applied(&live(&fields, &desired), &desired));
    }

    #[test]
    fn an_object_of_nobody_is_not_applied() {
        let desired = signed(json!({"spec": {"a": 1}}));
        assert!(!is_applied(&ObjectMeta::default(), &desired));
    }
}
