//! The token check.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;

use crate::error::{Code, Result, WireError};
use crate::net::Credential;

/// Compare the bearer token of a request with ours as it is now, in a time that tells nothing about it but its length.
pub(super) fn check_token(expected: Option<&Credential>, headers: &HeaderMap) -> Result<()> {
    let Some(expected) = expected else { return Ok(()) };
    let refused = |text| Err(WireError::new(Code::Unauthenticated, text));
    let Some(given) = headers.get(AUTHORIZATION) else {
        return refused("the server wants a token; give it with token= or SKYTORCH_TOKEN");
    };
    let expected = match expected.token() {
        Ok(expected) => expected,
        Err(e) => {
            tracing::warn!("nobody can be let in: {e}");
            return refused("the server has no token to compare with: its token file is empty or cannot be read");
        }
    };
    let given = given.as_bytes().strip_prefix(b"Bearer ").unwrap_or_default();
    if given.ct_eq(&expected).into() {
        return Ok(());
    }
    refused("the server refused the token; check SKYTORCH_TOKEN or token=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_passes() {
        let with = |text: &str| HeaderMap::from_iter([(AUTHORIZATION, text.parse().unwrap())]);
        assert!(check_token(None, &HeaderMap::new()).is_ok());
        assert!(check_token(Some(&"abc".into()), &with("Bearer abc")).is_ok());
        for text in ["Bearer abd", "Bearer ab", "Bearer abcd", "Bearer ", "abc", "Basic abc", ""] {
            let refused = check_token(Some(&"abc".into()), &with(text)).unwrap_err();
            assert_eq!(refused.code, Code::Unauthenticated, "{text}");
            assert!(!refused.message.contains("abc"));
        }
        assert!(check_token(Some(&"abc".into()), &HeaderMap::new()).is_err());
    }
}
