//! The committed Rust types of `proto/` are what the generator makes of it today.

use std::collections::BTreeMap;
use std::path::Path;

#[path = "../examples/generate_proto.rs"]
mod generate_proto;

fn files(folder: &Path) -> BTreeMap<String, String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

#[test]
fn proto_types_are_up_to_date() {
    let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gen");
    let _ = std::fs::remove_dir_all(&fresh);
    std::fs::create_dir_all(&fresh).unwrap();
    generate_proto::generate(&fresh).unwrap();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen");
    assert!(
        files(&fresh) == files(&committed),
        "src/gen is stale: run `cargo run -p skytorch-wire --example generate_proto` and commit the result"
    );
}
