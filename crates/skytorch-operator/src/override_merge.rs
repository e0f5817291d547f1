//! Merges a Compute's `override` into the pod template: objects by key, `null` removes, and lists whose items have a
//! name item by item. Any other list is replaced. It is what people know from strategic merge patches, without the
//! schema that those need: the key of a list's items is told by the list's name and by what the items have.

use serde_json::{Map, Value};

/// Merges `patch` into `base`.
pub(crate) fn merge(base: &mut Value, patch: &Value) {
    merge_field("", base, patch);
}

fn merge_field(field: &str, base: &mut Value, patch: &Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => merge_object(base, patch),
        (Value::Array(base), Value::Array(patch)) if keyed(field, base, patch).is_some() => {
            merge_list(keyed(field, base, patch).unwrap_or("name"), base, patch);
        }
        (base, patch) => *base = without_nulls(patch),
    }
}

fn merge_object(base: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match (value, base.get_mut(key)) {
            (Value::Null, _) => {
                base.remove(key);
            }
            (value, Some(old)) => merge_field(key, old, value),
            (value, None) => {
                base.insert(key.clone(), without_nulls(value));
            }
        }
    }
}

/// Items of the same key are merged, new ones come last.
fn merge_list(key: &str, base: &mut Vec<Value>, patch: &[Value]) {
    for item in patch {
        match base.iter_mut().find(|old| old.get(key) == item.get(key)) {
            Some(old) => merge_field("", old, item),
            None => base.push(without_nulls(item)),
        }
    }
}

/// The key by which the items of both lists are told apart, if they all have it. One volume is mounted in several
/// places, so a mount's name says nothing; its path does.
fn keyed(field: &str, base: &[Value], patch: &[Value]) -> Option<&'static str> {
    let key = match field {
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        _ => "name",
    };
    base.iter().chain(patch).all(|item| item.get(key).is_some_and(Value::is_string)).then_some(key)
}

/// What a merge into nothing leaves.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        value => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(mut base: Value, patch: &Value) -> Value {
        merge(&mut base, patch);
        base
    }

    #[test]
    fn containers_merge_by_name() {
        let base =
            json!({"spec": {"containers": [{"name": "server", "image": "a", "env": [{"name": "A", "value": "1"}]}]}});
        let patch = json!({"spec": {"containers": [
            {"name": "sidecar", "image": "b"},
            {"name": "server", "env": [{"name": "B", "value": "2"}]},
        ]}});
        assert_eq!(
            merged(base, &patch),
            json!({"spec": {"containers": [
                {"name": "server", "image": "a", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                {"name": "sidecar", "image": "b"},
            ]}})
        );
    }

    #[test]
    fn mounts_merge_by_path() {
        let base = json!({"volumeMounts": [{"name": "v", "mountPath": "/a"}]});
        let patch =
            json!({"volumeMounts": [{"name": "v", "mountPath": "/b"}, {"mountPath": "/a", "readOnly": true}]});
        assert_eq!(
            merged(base, &patch),
            json!({"volumeMounts": [
                {"name": "v", "mountPath": "/a", "readOnly": true},
                {"name": "v", "mountPath": "/b"},
            ]})
        );
    }

    #[test]
    fn other_lists_and_scalars_are_replaced() {
        let base = json!({"tolerations": [{"key": "a"}], "args": ["x"], "n": 1});
        let patch = json!({"tolerations": [{"key": "b"}], "args": ["y", "z"], "n": {"m": 2}});
        assert_eq!(merged(base, &patch), patch);
    }

    #[test]
    fn null_removes_and_is_never_left() {
        let base = json!({"a": {"b": 1, "c": 2}});
        assert_eq!(merged(base, &json!({"a": {"b": null, "d": {"e": null}}})), json!({"a": {"c": 2, "d": {}}}));
    }

    #[test]
    fn a_list_of_names_and_none_is_replaced() {
        assert_eq!(
            merged(json!({"x": [{"name": "a"}]}), &json!({"x": [{"key": "b"}]})),
            json!({"x": [{"key": "b"}]})
        );
    }

    #[test]
    fn the_same_override_twice_changes_nothing_more() {
        let base =
            json!({"spec": {"containers": [{"name": "server"}], "volumes": [{"name": "tmp", "emptyDir": {}}]}});
        let patch = json!({"spec": {"volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]}});
        let once = merged(base, &patch);
        assert_eq!(merged(once.clone(), &patch), once);
    }
}
