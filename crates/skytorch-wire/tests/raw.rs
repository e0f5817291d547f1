//! The unsafe door of the codec: structs of the C ABI, built from safe values, come back as the same safe values.
#![allow(unsafe_code)]

mod support;

use proptest::prelude::*;
use skytorch_wire::abi::{SKY_RECORD_DEFINE, SkyRecord};
use skytorch_wire::codec::{Decoder, OpEncoder, raw};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn templates_cross_the_abi(template in support::template()) {
        let mut bytes = Vec::new();
        OpEncoder::new(1, 0).define(&mut bytes, 0, &template).unwrap();
        let mut decoder = Decoder::new(1, 0);
        let batch = decoder.decode(1, &bytes).unwrap();
        let record: &SkyRecord = &batch.records()[0];
        prop_assert_eq!(record.kind, SKY_RECORD_DEFINE);
        // SAFETY: the record lies in the batch, which is alive.
        let crossed = unsafe { raw::template(record.template_def) }.unwrap();
        prop_assert_eq!(format!("{crossed:?}"), format!("{template:?}"));
    }

    #[test]
    fn replies_cross_the_abi(reply in support::reply()) {
        let raw = raw::reply_into_raw(reply.clone());
        // SAFETY: `reply_into_raw` made it, and it is freed once, after its last use.
        let crossed = unsafe {
            let crossed = raw::reply(raw).unwrap();
            raw::reply_free(raw);
            crossed
        };
        prop_assert_eq!(format!("{crossed:?}"), format!("{reply:?}"));
    }
}

#[test]
fn null_is_no_reply() {
    // SAFETY: null is allowed.
    unsafe { raw::reply_free(std::ptr::null_mut()) };
}
