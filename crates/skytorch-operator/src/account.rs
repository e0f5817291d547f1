//! The ServiceAccount of the pod. It has no rights, and no token of it is mounted: a server speaks to nobody but its
//! clients and other servers.

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::ResourceExt;

use crate::crd::Compute;
use crate::names;

/// The wish.
pub(crate) fn account(compute: &Compute) -> ServiceAccount {
    ServiceAccount {
        metadata: names::owned_meta(compute, compute.name_any()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
