//! The Service: the address that a Compute keeps for its life, over suspension and every pod. Its type is left alone,
//! so whoever wants a load balancer in front of a Compute patches it in and keeps it.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::crd::Compute;
use crate::names;

/// The wish.
pub(crate) fn service(compute: &Compute) -> Service {
    let name = compute.name_any();
    Service {
        spec: Some(ServiceSpec {
            selector: Some(names::selector(&name)),
            ports: Some(vec![ServicePort {
                name: Some("session".to_owned()),
                port: names::SESSION_PORT,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String("session".to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        metadata: names::owned_meta(compute, name),
        ..Service::default()
    }
}

/// Host and port of the session inside the cluster.
pub(crate) fn address(service: &Service) -> Option<String> {
    let ip = service.spec.as_ref()?.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None")?;
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    Some(format!("{host}:{}", names::SESSION_PORT))
}
