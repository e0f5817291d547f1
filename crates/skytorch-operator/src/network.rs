//! Who may reach the pod. The session's port, which wants a token under TLS, is open to all: clients come through the
//! API server, a load balancer or another Compute. The metrics' port, which wants neither, is the operator's; a
//! NetworkPolicy beside this one lets Prometheus in. Health is asked by the node, which no policy stops.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::crd::Compute;
use crate::names;

/// The wish.
pub(crate) fn policy(compute: &Compute, operator_namespace: &str) -> NetworkPolicy {
    let port = |number: i32| {
        Some(vec![NetworkPolicyPort {
            port: Some(IntOrString::Int(number)),
            protocol: Some("TCP".to_owned()),
            ..NetworkPolicyPort::default()
        }])
    };
    let operator = NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_labels: Some([("kubernetes.io/metadata.name".to_owned(), operator_namespace.to_owned())].into()),
            ..LabelSelector::default()
        }),
        ..NetworkPolicyPeer::default()
    };
    let name = compute.name_any();
    NetworkPolicy {
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(names::selector(&name)),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![
                NetworkPolicyIngressRule { from: None, ports: port(names::SESSION_PORT) },
                NetworkPolicyIngressRule { from: Some(vec![operator]), ports: port(names::METRICS_PORT) },
            ]),
            ..NetworkPolicySpec::default()
        }),
        metadata: names::owned_meta(compute, name),
    }
}
