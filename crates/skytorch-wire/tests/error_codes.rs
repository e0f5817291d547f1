//! One catalogue of error codes: the Rust codes, the proto enum and the Python classes agree.
//!
//! The Python half reads `python/skytorch/errors.py` as text, so that it needs no interpreter.

use std::collections::BTreeMap;

use skytorch_wire::error::Code;
use skytorch_wire::proto::ErrorCode;

/// `OpOutOfMemory` -> `ERROR_CODE_OP_OUT_OF_MEMORY`.
fn proto_name(code: Code) -> String {
    let mut name = String::from("ERROR_CODE");
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[test]
fn proto_enum_is_the_catalogue() {
    for &code in Code::ALL {
        let proto = ErrorCode::try_from(code.number() as i32).unwrap();
        assert_eq!(proto.as_str_name(), proto_name(code));
    }
    let in_proto = (0..10_000).filter(|&number| ErrorCode::try_from(number).is_ok()).count();
    assert_eq!(in_proto, Code::ALL.len(), "the proto has a code that Rust lacks");
}

#[test]
fn python_has_a_class_for_each_code() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../python/skytorch/errors.py");
    let text = std::fs::read_to_string(source).unwrap();
    let entries = text.split("CODES: ").nth(1).and_then(|rest| rest.split("\n}\n").next()).unwrap();
    let classes: BTreeMap<u32, &str> = entries
        .lines()
        .filter_map(|line| line.trim().trim_end_matches(',').split_once(": "))
        .filter_map(|(number, class)| Some((number.parse().ok()?, class)))
        .collect();
    for &code in Code::ALL {
        let name = format!("{code:?}");
        let want = match code {
            Code::Ok => None,
            Code::Internal | Code::Protocol => Some(format!("{name}Error")),
            Code::Forked => Some("ForkedSession".to_owned()),
            Code::Interrupted => Some("KeyboardInterrupt".to_owned()),
            // These two are torch's, which errors.py imports only when it must.
            Code::OpOutOfMemory | Code::OpLinalg => None,
            _ => match name.strip_prefix("Op") {
                Some(kind) => Some(format!("{kind}Error")),
                None => Some(name),
            },
        };
        assert_eq!(classes.get(&code.number()).copied(), want.as_deref(), "code {}", code.number());
    }
}
