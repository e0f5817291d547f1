//! The claims of a Compute's volumes. They are the Compute's own and not the StatefulSet's templates', so suspension
//! and a replaced workload keep them, and the Compute's end takes them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use kube::ResourceExt;

use crate::crd::{Compute, Volume};
use crate::names;

/// The wish for one volume.
pub(crate) fn claim(compute: &Compute, volume: &Volume) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: names::owned_meta(compute, names::claim_name(&compute.name_any(), &volume.name)),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(volume.access_modes.clone()),
            storage_class_name: volume.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), volume.storage.clone())])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}
