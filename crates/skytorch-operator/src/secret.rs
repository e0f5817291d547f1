//! The two Secrets of a Compute: the token with the server's certificate, which is mounted, and the authority's key,
//! which is not. What is stored and good is kept, so that wishing for them twice is wishing for the same.
//!
//! A token that somebody writes into the Secret is taken as the new one; one that is removed is made anew.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use crate::applied::hex;
use crate::certificate::{self, Certified};
use crate::crd::Compute;
use crate::error::Error;
use crate::names;

/// The names under which a server is reached inside the cluster.
pub(crate) fn server_names(compute: &Compute) -> Vec<String> {
    let name = compute.name_any();
    let namespace = compute.namespace().unwrap_or_default();
    ["", ".{}", ".{}.svc", ".{}.svc.cluster.local"]
        .map(|rest| format!("{name}{}", rest.replace("{}", &namespace)))
        .into()
}

/// The authority that is stored, or a new one.
pub(crate) fn authority(
    compute: &Compute,
    stored: Option<&Secret>,
    now: SystemTime,
    lifetime: Duration,
) -> Result<(Certified, Secret), Error> {
    let kept = Certified { certificate: text(stored, "ca.crt"), key: text(stored, "ca.key") };
    let authority = if certificate::is_authority(&kept, now, lifetime) {
        kept
    } else {
        certificate::make_authority(&compute.name_any(), now)?
    };
    let data = [("ca.crt", authority.certificate.clone()), ("ca.key", authority.key.clone())];
    Ok((authority, secret(compute, names::authority_name(&compute.name_any()), data)))
}

/// The server's Secret, and when its certificate is to be renewed.
pub(crate) fn server(
    compute: &Compute,
    stored: Option<&Secret>,
    authority: &Certified,
    now: SystemTime,
    lifetime: Duration,
) -> Result<(Secret, SystemTime), Error> {
    let names = server_names(compute);
    let kept = Certified { certificate: text(stored, "tls.crt"), key: text(stored, "tls.key") };
    let (server, renewal) = match certificate::renewal(authority, &kept, &names) {
        Some(renewal) if renewal > now => (kept, renewal),
        _ => (certificate::make_server(authority, &names, now, lifetime)?, now + lifetime * 2 / 3),
    };
    let token = text(stored, "token");
    let data = [
        ("token", if token.trim().is_empty() { make_token() } else { token }),
        ("ca.crt", authority.certificate.clone()),
        ("tls.crt", server.certificate),
        ("tls.key", server.key),
    ];
    Ok((secret(compute, compute.name_any(), data), renewal))
}

fn secret<const N: usize>(compute: &Compute, name: String, data: [(&str, String); N]) -> Secret {
    let data = data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())));
    Secret {
        metadata: names::owned_meta(compute, name),
        type_: Some("Opaque".to_owned()),
        data: Some(data.collect::<BTreeMap<_, _>>()),
        ..Secret::default()
    }
}

/// 256 random bits, as text.
fn make_token() -> String {
    let mut bytes = [0_u8; 32];
    rand::fill(&mut bytes).expect("the system has random bytes");
    hex(&bytes)
}

fn text(secret: Option<&Secret>, key: &str) -> String {
    let value = secret.and_then(|secret| secret.data.as_ref()).and_then(|data| data.get(key));
    value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(90 * 86400);

    fn compute() -> Compute {
        let mut compute = Compute::new("demo", crate::crd::ComputeSpec::default());
        compute.metadata.namespace = Some("ns".to_owned());
        compute.metadata.uid = Some("u".to_owned());
        compute
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn a_server_has_the_names_of_its_service() {
        assert_eq!(server_names(&compute()), ["demo", "demo.ns", "demo.ns.svc", "demo.ns.svc.cluster.local"]);
    }

    #[test]
    fn what_is_good_is_kept() {
        let compute = compute();
        let (first, stored) = authority(&compute, None, now(), LIFETIME).expect("an authority");
        let (second, again) = authority(&compute, Some(&stored), now(), LIFETIME).expect("an authority");
        assert_eq!((&first, &stored), (&second, &again));
        let (stored, renewal) = server(&compute, None, &first, now(), LIFETIME).expect("a secret");
        let (again, same) = server(&compute, Some(&stored), &first, now(), LIFETIME).expect("a secret");
        assert_eq!((&stored, renewal), (&again, same));
        assert_eq!(text(Some(&stored), "token").len(), 64);
    }

    #[test]
    fn a_certificate_that_is_due_is_renewed_and_the_token_stays() {
        let compute = compute();
        let (authority, _) = authority(&compute, None, now(), LIFETIME).expect("an authority");
        let (stored, renewal) = server(&compute, None, &authority, now(), LIFETIME).expect("a secret");
        let (renewed, next) = server(&compute, Some(&stored), &authority, renewal, LIFETIME).expect("a secret");
        assert_ne!(text(Some(&renewed), "tls.crt"), text(Some(&stored), "tls.crt"));
        assert_eq!(text(Some(&renewed), "token"), text(Some(&stored), "token"));
        assert_eq!(text(Some(&renewed), "ca.crt"), text(Some(&stored), "ca.crt"));
        assert!(next > renewal);
    }

    #[test]
    fn a_token_that_is_gone_is_made_anew() {
        let compute = compute();
        let (authority, _) = authority(&compute, None, now(), LIFETIME).expect("an authority");
        let (mut stored, _) = server(&compute, None, &authority, now(), LIFETIME).expect("a secret");
        let old = text(Some(&stored), "token");
        stored.data.as_mut().expect("data").remove("token");
        let (again, _) = server(&compute, Some(&stored), &authority, now(), LIFETIME).expect("a secret");
        assert_ne!(text(Some(&again), "token"), old);
        assert_eq!(text(Some(&again), "tls.crt"), text(Some(&stored), "tls.crt"));
    }
}
