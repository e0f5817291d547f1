//! Writes the Rust types of `proto/` into a folder: `cargo run --example generate_proto -- [OUT]`.
//!
//! OUT is `src/gen` unless given. The output is committed, so that a build needs no proto compiler; the test
//! `generated` runs this into a scratch folder and compares. It is a dev-only program, not a build script.
//!
//! The subtle thing: `Session` and `Transfer` carry raw frames and not protobuf messages, so no tonic code is made
//! for them; their paths are spoken by `client`, `server` and `lane`. Only their messages are generated.

use std::path::{Path, PathBuf};

use prost::Message as _;

/// Services whose messages are protobuf, and which therefore get tonic clients and servers.
const TONIC_SERVICES: [&str; 2] = ["Metrics", "Health"];

/// First line of each generated file.
const MARK: &str = "// Generated from proto/ by `cargo run --example generate_proto`. Do not edit.\n";

fn proto_files(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            proto_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

/// Compiles every file under `proto/` and writes one Rust file per package into `out_dir`.
pub(crate) fn generate(out_dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let proto_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let mut files = Vec::new();
    proto_files(&proto_dir, &mut files)?;
    let compiled = protox::Compiler::new([&proto_dir])?
        .include_source_info(true)
        .include_imports(true)
        .open_files(&files)?
        .encode_file_descriptor_set();
    let mut descriptors = prost_types::FileDescriptorSet::decode(compiled.as_slice())?;
    for file in &mut descriptors.file {
        file.service.retain(|service| TONIC_SERVICES.contains(&service.name()));
    }

    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .out_dir(out_dir)
        .compile_fds(descriptors)?;

    for entry in std::fs::read_dir(out_dir)? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        if !text.starts_with(MARK) {
            std::fs::write(&path, format!("{MARK}{text}"))?;
        }
    }
    Ok(())
}

#[allow(dead_code, reason = "the test `generated` includes this file as a module")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out_dir =
        std::env::args().nth(1).map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen"), PathBuf::from);
    generate(&out_dir)
}
