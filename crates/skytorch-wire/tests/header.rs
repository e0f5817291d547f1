//! `include/skytorch/wire.h` is what cbindgen makes of `src/abi.rs`. If this fails: `make generate`, and commit.

use std::path::Path;

#[test]
fn committed_header_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(root.join("src/abi.rs"))
        .generate()
        .expect("abi.rs is what cbindgen can read");
    let mut made = Vec::new();
    bindings.write(&mut made);
    if std::env::var_os("SKYTORCH_GENERATE").is_some() {
        std::fs::write(root.join("include/skytorch/wire.h"), &made).expect("write wire.h");
    }
    let committed = std::fs::read(root.join("include/skytorch/wire.h")).expect("wire.h");
    assert!(made == committed, "include/skytorch/wire.h is not what src/abi.rs says: run `make generate`");
}
