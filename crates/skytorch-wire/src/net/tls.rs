//! TLS 1.3 by rustls: certificates in, configurations out. Nothing older is spoken, so there is nothing to downgrade to.
//!
//! The subtle thing is a server's [`Identity`]: its files are read for each connection, so that a new certificate
//! counts from the moment it is there; what cannot be used (half of a pair has been replaced) leaves the old one.

use std::borrow::Cow;
use std::sync::Arc;

use parking_lot::Mutex;

use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::credential::Credential;
use crate::error::{Code, Result, WireError};

/// Certificates and keys in PEM. A server needs `cert_pem` and `key_pem`, a client `ca_pem`; with a `ca_pem`, a server
/// asks its clients for certificates of it.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Whom to believe.
    pub ca_pem: Option<Credential>,
    /// Our own certificate chain.
    pub cert_pem: Option<Credential>,
    /// Its private key.
    pub key_pem: Option<Credential>,
    /// The name that the server's certificate must carry, if it is not the host of the address.
    pub server_name: Option<String>,
}

fn bad(what: &str, e: impl std::fmt::Display) -> WireError {
    WireError::argument(format!("the TLS {what} cannot be used: {e}; give it in PEM"))
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found =
        CertificateDer::pem_slice_iter(pem).collect::<std::result::Result<Vec<_>, _>>().map_err(|e| bad(what, e))?;
    if found.is_empty() { Err(bad(what, "it holds no certificate")) } else { Ok(found) }
}

/// Plaintext that is encrypted before it is handed to the socket: one system call for many TLS records.
pub(crate) const BUFFER_BYTES: usize = 512 << 10;

/// AES-128 first: it is as good for a session's life, and a quarter faster on bulk bytes.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    use rustls::crypto::aws_lc_rs::cipher_suite::*;
    let cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(rustls::crypto::CryptoProvider { cipher_suites, ..rustls::crypto::aws_lc_rs::default_provider() })
}

/// The bytes of a [`TlsOptions`] at one moment.
#[derive(PartialEq)]
struct Pem<'a> {
    ca: Option<Cow<'a, [u8]>>,
    cert: Option<Cow<'a, [u8]>>,
    key: Option<Cow<'a, [u8]>>,
}

impl Pem<'_> {
    fn into_owned(self) -> Pem<'static> {
        let own = |bytes: Option<Cow<'_, [u8]>>| bytes.map(|bytes| Cow::Owned(bytes.into_owned()));
        Pem { ca: own(self.ca), cert: own(self.cert), key: own(self.key) }
    }

    fn roots(&self) -> Result<Option<RootCertStore>> {
        let Some(ca) = &self.ca else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca, "CA")? {
            roots.add(certificate).map_err(|e| bad("CA", e))?;
        }
        Ok(Some(roots))
    }

    fn identity(&self) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| bad("key", e))?;
                Ok(Some((certificates(cert, "certificate")?, key)))
            }
            (None, None) => Ok(None),
            _ => Err(WireError::argument("a TLS certificate needs its key and a key its certificate; give both")),
        }
    }

    fn client(&self) -> Result<Arc<ClientConfig>> {
        let Some(roots) = self.roots()? else {
            return Err(WireError::argument("a tls:// address needs the server's CA certificate (ca)"));
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| bad("setup", e))?
            .with_root_certificates(roots);
        let mut config = match self.identity()? {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|e| bad("certificate", e))?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    fn server(&self) -> Result<Arc<ServerConfig>> {
        let Some((chain, key)) = self.identity()? else {
            return Err(WireError::argument("a tls:// listener needs a certificate and its key"));
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| bad("setup", e))?;
        let builder = match self.roots()? {
            Some(roots) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                    .build()
                    .map_err(|e| bad("client CA", e))?,
            ),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|e| bad("certificate", e))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }
}

impl TlsOptions {
    fn read(&self) -> Result<Pem<'_>> {
        fn read<'a>(credential: &'a Option<Credential>, what: &str) -> Result<Option<Cow<'a, [u8]>>> {
            credential.as_ref().map(|credential| credential.read(what)).transpose()
        }
        Ok(Pem {
            ca: read(&self.ca_pem, "TLS CA")?,
            cert: read(&self.cert_pem, "TLS certificate")?,
            key: read(&self.key_pem, "TLS key")?,
        })
    }

    /// What a client presents and checks.
    pub(crate) fn client(&self) -> Result<Arc<ClientConfig>> {
        self.read()?.client()
    }

    /// The name to look for in the server's certificate.
    pub(crate) fn name(&self, host: &str) -> Result<ServerName<'static>> {
        let name = self.server_name.as_deref().unwrap_or(host);
        ServerName::try_from(name.to_owned()).map_err(|e| {
            WireError::new(Code::InvalidArgument, format!("{name:?} is not a name that a certificate can carry: {e}"))
        })
    }
}

/// Whether an error says that the peer turned down our certificate, or wants one. In TLS 1.3 a client hears of it only
/// after its own handshake, as an error of the connection; hyper keeps no more than its text.
pub(crate) fn refuses_certificate(error: &str) -> bool {
    use rustls::AlertDescription::*;
    let alerts = [
        CertificateRequired,
        CertificateExpired,
        CertificateRevoked,
        CertificateUnknown,
        BadCertificate,
        UnsupportedCertificate,
        UnknownCA,
        DecryptError,
        AccessDenied,
    ];
    alerts.into_iter().any(|alert| error.contains(&rustls::Error::AlertReceived(alert).to_string()))
}

/// What a server presents and whom it asks for a certificate; see the module.
pub(crate) struct Identity {
    options: TlsOptions,
    current: Mutex<(Pem<'static>, Arc<ServerConfig>)>,
}

impl Identity {
    /// Fails if the certificate and key cannot be used now.
    pub(crate) fn new(options: TlsOptions) -> Result<Identity> {
        let pem = options.read()?.into_owned();
        let config = pem.server()?;
        Ok(Identity { options, current: Mutex::new((pem, config)) })
    }

    /// For the next connection.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock();
        let read = self.options.read().map(|pem| (pem != current.0).then_some(pem));
        match read.and_then(|changed| changed.map(|pem| Ok((pem.server()?, pem.into_owned()))).transpose()) {
            Ok(Some((config, pem))) => {
                tracing::info!("a new TLS certificate is in use");
                *current = (pem, config);
            }
            Ok(None) => {}
            Err(e) => tracing::warn!("the old TLS certificate stays in use: {e}"),
        }
        current.1.clone()
    }
}
