//! The committed definition of the Compute resource is the one that the types make. Regenerate it with
//! `SKYTORCH_GENERATE=1 cargo test --release -p skytorch-operator --test crd`.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

#[test]
fn the_committed_definition_is_what_crdgen_prints() {
    let printed = Command::new(env!("CARGO_BIN_EXE_skytorch-operator")).arg("crdgen").output().expect("crdgen runs");
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let printed = String::from_utf8(printed.stdout).expect("text");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crd/compute.skytorch.dev_computes.yaml");
    if std::env::var_os("SKYTORCH_GENERATE").is_some() {
        std::fs::write(&path, &printed).expect("deploy/crd can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == printed,
        "{} is not what `skytorch-operator crdgen` prints: run SKYTORCH_GENERATE=1 cargo test --release -p skytorch-operator --test crd",
        path.display()
    );
}
