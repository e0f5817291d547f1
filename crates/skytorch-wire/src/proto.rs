//! The protobuf messages of `proto/skytorch/v1`, as generated into `src/gen/` and committed. Nothing is written by
//! hand here: change the `.proto` and regenerate.
#![allow(missing_docs, clippy::all, unreachable_pub)]

include!("gen/skytorch.v1.rs");
