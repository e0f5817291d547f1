//! The token check.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;

use crate::error::{Code, Result, WireError};

/// Compare the bearer token of a request with ours, in a time that tells nothing about it but its length.
pub(super) fn check_token(expected: Option<&str>, headers: &HeaderMap) -> Result<()> {
    let Some(expected) = expected else { return Ok(()) };
    let given = headers.get(AUTHORIZATION).map(|value| value.as_bytes().strip_prefix(b"Bearer ").unwrap_or_default());
    match given {
        Some(given) if bool::from(given.ct_eq(expected.as_bytes())) => Ok(()),
        Some(_) => {
            Err(WireError::new(Code::Unauthenticated, "the server refused the token; check SKYTORCH_TOKEN or token="))
        }
        None => Err(WireError::new(
            Code::Unauthenticated,
            "the server wants a token; give it with token= or SKYTORCH_TOKEN",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_passes() {
        let with = |text: &str| HeaderMap::from_iter([(AUTHORIZATION, text.parse().unwrap())]);
        assert!(check_token(None, &HeaderMap::new()).is_ok());
        assert!(check_token(Some("abc"), &with("Bearer abc")).is_ok());
        for text in ["Bearer abd", "Bearer ab", "Bearer abcd", "Bearer ", "abc", "Basic abc", ""] {
            let refused = check_token(Some("abc"), &with(text)).unwrap_err();
            assert_eq!(refused.code, Code::Unauthenticated, "{text}");
            assert!(!refused.message.contains("abc"));
        }
        assert!(check_token(Some("abc"), &HeaderMap::new()).is_err());
    }
}
