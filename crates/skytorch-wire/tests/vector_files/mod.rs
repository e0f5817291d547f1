//! Reads the golden bytes of `tests/vectors` and the examples of `docs/wire.md`, for the test that holds the codec to
//! them and for the fuzzer that starts from them. The format is in `tests/vectors/README.md`.

use std::path::{Path, PathBuf};

#[derive(Default)]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) first: u64,
    pub(crate) before: Vec<u8>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) becomes: Vec<String>,
    pub(crate) refused: Option<String>,
}

fn read(path: &Path) -> Vector {
    let text = std::fs::read_to_string(path).expect("a vector is text");
    assert!(text.starts_with("# "), "{}: a vector begins with its rule", path.display());
    parse(path.display().to_string(), &text)
}

fn parse(name: String, text: &str) -> Vector {
    let mut vector = Vector { name, ..Vector::default() };
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "as" => vector.what = rest.to_owned(),
            "first" => vector.first = rest.parse().expect("a number"),
            "before" => vector.before.extend(parse_bytes(rest)),
            "bytes" => vector.bytes.extend(parse_bytes(rest)),
            "becomes" => vector.becomes.push(rest.to_owned()),
            "refused" => vector.refused = Some(rest.to_owned()),
            other => panic!("{}: unknown word {other:?}", vector.name),
        }
    }
    vector
}

/// Pairs of hexadecimal digits and "text", up to a `#`.
fn parse_bytes(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        if let Some(text) = rest.strip_prefix('"') {
            let (text, after) = text.split_once('"').expect("text ends with a quote");
            bytes.extend_from_slice(text.as_bytes());
            rest = after.trim_start();
        } else {
            let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
            bytes.push(u8::from_str_radix(word, 16).expect("two hexadecimal digits"));
            rest = after.trim_start();
        }
    }
    bytes
}

/// Those of `accept` or `reject`.
pub(crate) fn vectors(folder: &str) -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(folder);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("a folder of vectors")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

/// The examples in the document: blocks of code in the language `vector`.
pub(crate) fn examples() -> Vec<Vector> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/wire.md");
    let text = std::fs::read_to_string(path).expect("docs/wire.md");
    let blocks = text.split("```vector\n").skip(1).map(|block| block.split("```").next().expect("a block ends"));
    blocks.enumerate().map(|(i, block)| parse(format!("docs/wire.md, example {}", i + 1), block)).collect()
}
