//! Merges a Compute's `override` into the pod template as Kubernetes' strategic merge patch would: objects by key,
//! `null` removes, lists of things that have an identity item by item, any other list is replaced. The subtle thing is
//! what an item is known by, which is no name everywhere: one that gives a port no name must not lose the others.

use serde_json::{Map, Value};

/// Merges `patch` into `base`.
pub(crate) fn merge(base: &mut Value, patch: &Value) {
    merge_field("", base, patch);
}

fn merge_field(field: &str, base: &mut Value, patch: &Value) {
    match (base, patch, merge_key(field)) {
        (Value::Object(base), Value::Object(patch), _) => merge_object(base, patch),
        (Value::Array(base), Value::Array(patch), Some(key)) => merge_list(key, base, patch),
        (base, patch, _) => *base = without_nulls(patch),
    }
}

/// What the items of a list are told apart by. Only lists that the operator's own template may have need to be here.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "env" | "volumes" | "claims" => Some("name"),
        "ports" => Some("containerPort"),
        // One volume is mounted in several places, so its name says nothing.
        "volumeMounts" => Some("mountPath"),
        _ => None,
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

/// Items of the same key are merged, new ones come last. One without a key is new, and the API server names what it lacks.
fn merge_list(key: &str, base: &mut Vec<Value>, patch: &[Value]) {
    for item in patch {
        match base.iter_mut().find(|old| item.get(key).is_some_and(|known| old.get(key) == Some(known))) {
            Some(old) => merge_field("", old, item),
            None => base.push(without_nulls(item)),
        }
    }
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
    fn ports_merge_by_number() {
        let base = json!({"ports": [{"name": "session", "containerPort": 7777}]});
        let patch = json!({"ports": [{"containerPort": 9000}, {"containerPort": 7777, "hostPort": 80}]});
        assert_eq!(
            merged(base, &patch),
            json!({"ports": [
                {"name": "session", "containerPort": 7777, "hostPort": 80},
                {"containerPort": 9000},
            ]})
        );
    }

    #[test]
    fn an_item_without_its_key_takes_nothing_away() {
        let base = json!({"containers": [{"name": "server"}]});
        let patch = json!({"containers": [{"image": "b"}]});
        assert_eq!(merged(base, &patch), json!({"containers": [{"name": "server"}, {"image": "b"}]}));
    }

    #[test]
    fn a_list_whose_items_merely_have_names_is_replaced() {
        let base = json!({"options": [{"name": "ndots"}]});
        let patch = json!({"options": [{"name": "edns0"}]});
        assert_eq!(merged(base, &patch), patch);
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
