//! The certificates of one Compute: an authority of its own, which stays, and a server certificate, which is renewed
//! at two thirds of its life. Keys are ECDSA P-256. What is stored is judged by parsing it, not by notes beside it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long an authority lasts.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3650 * 86400);
/// Certificates begin in the past: clocks differ.
const BACKDATED: Duration = Duration::from_secs(300);

/// A certificate with its key, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certified {
    /// The certificate.
    pub(crate) certificate: String,
    /// Its private key.
    pub(crate) key: String,
}

/// Makes an authority.
pub(crate) fn make_authority(compute: &str, now: SystemTime) -> Result<Certified, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, format!("{compute} authority"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, now, AUTHORITY_LIFETIME);
    let key = KeyPair::generate()?;
    Ok(Certified { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// Makes a server certificate for `names`, signed by the authority.
pub(crate) fn make_server(
    authority: &Certified,
    names: &[String],
    now: SystemTime,
    lifetime: Duration,
) -> Result<Certified, rcgen::Error> {
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, names.first().map_or("skytorch", String::as_str));
    params.use_authority_key_identifier_extension = true;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    valid(&mut params, now, lifetime);
    let key = KeyPair::generate()?;
    Ok(Certified { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

/// Whether the authority can still sign: its key fits, and it outlives what it would sign.
pub(crate) fn is_authority(authority: &Certified, now: SystemTime, lifetime: Duration) -> bool {
    let fits = || -> Option<bool> {
        let key = KeyPair::from_pem(&authority.key).ok()?;
        let der = der(&authority.certificate)?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        Some(
            certificate.is_ca()
                && holds(&certificate, &key)
                && seconds(now + lifetime) < certificate.validity().not_after.timestamp(),
        )
    };
    fits().unwrap_or(false)
}

/// When the server certificate is to be renewed. `None`: at once, since it is not what it should be.
pub(crate) fn renewal(authority: &Certified, server: &Certified, names: &[String]) -> Option<SystemTime> {
    let issuer_der = der(&authority.certificate)?;
    let server_der = der(&server.certificate)?;
    let (_, issuer) = X509Certificate::from_der(&issuer_der).ok()?;
    let (_, certificate) = X509Certificate::from_der(&server_der).ok()?;
    certificate.verify_signature(Some(issuer.public_key())).ok()?;
    if !holds(&certificate, &KeyPair::from_pem(&server.key).ok()?) || dns_names(&certificate) != names {
        return None;
    }
    let validity = certificate.validity();
    let end = UNIX_EPOCH + Duration::from_secs(u64::try_from(validity.not_after.timestamp()).ok()?);
    let whole =
        Duration::from_secs(u64::try_from(validity.not_after.timestamp() - validity.not_before.timestamp()).ok()?);
    end.checked_sub(whole.saturating_sub(BACKDATED) / 3)
}

fn valid(params: &mut CertificateParams, now: SystemTime, lifetime: Duration) {
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + lifetime).into();
}

fn der(pem: &str) -> Option<Vec<u8>> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    Some(pem.contents)
}

/// Whether the certificate is the key's.
fn holds(certificate: &X509Certificate<'_>, key: &KeyPair) -> bool {
    certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect()
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(90 * 86400);

    fn names() -> Vec<String> {
        vec!["demo".to_owned(), "demo.ns.svc".to_owned()]
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        let authority = make_authority("demo", now()).expect("an authority");
        for lifetime in [LIFETIME, Duration::from_secs(6), Duration::from_secs(3600)] {
            let server = make_server(&authority, &names(), now(), lifetime).expect("a certificate");
            assert_eq!(renewal(&authority, &server, &names()), Some(now() + lifetime * 2 / 3));
        }
    }

    #[test]
    fn what_does_not_fit_is_renewed_at_once() {
        let authority = make_authority("demo", now()).expect("an authority");
        let other = make_authority("demo", now()).expect("an authority");
        let server = make_server(&authority, &names(), now(), LIFETIME).expect("a certificate");
        let second = make_server(&authority, &names(), now(), LIFETIME).expect("a certificate");
        let swapped = Certified { key: second.key, ..server.clone() };
        let broken = Certified { certificate: "no PEM".to_owned(), ..server.clone() };
        assert_eq!(renewal(&other, &server, &names()), None, "signed by another authority");
        assert_eq!(renewal(&authority, &swapped, &names()), None, "another key");
        assert_eq!(renewal(&authority, &broken, &names()), None, "no certificate");
        assert_eq!(renewal(&authority, &server, &names()[..1]), None, "other names");
    }

    #[test]
    fn an_authority_signs_while_it_outlives_what_it_signs() {
        let authority = make_authority("demo", now()).expect("an authority");
        let other = make_authority("demo", now()).expect("an authority");
        assert!(is_authority(&authority, now(), LIFETIME));
        assert!(!is_authority(&authority, now() + AUTHORITY_LIFETIME - LIFETIME, LIFETIME));
        assert!(!is_authority(&Certified { key: other.key, ..authority }, now(), LIFETIME));
    }
}
