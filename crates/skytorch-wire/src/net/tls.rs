//! TLS 1.3 by rustls: certificates in, configurations out.

use std::sync::Arc;

use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::error::{Code, Result, WireError};

/// Certificates and keys in PEM. A server needs `cert_pem` and `key_pem`, a client `ca_pem`.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Whom to believe.
    pub ca_pem: Option<Vec<u8>>,
    /// Our own certificate chain.
    pub cert_pem: Option<Vec<u8>>,
    /// Its private key.
    pub key_pem: Option<Vec<u8>>,
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

impl TlsOptions {
    fn identity(&self) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
        match (&self.cert_pem, &self.key_pem) {
            (Some(cert), Some(key)) => {
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| bad("key", e))?;
                Ok(Some((certificates(cert, "certificate")?, key)))
            }
            (None, None) => Ok(None),
            _ => Err(WireError::argument("a TLS certificate needs its key and a key its certificate; give both")),
        }
    }

    /// What a client presents and checks.
    pub(crate) fn client(&self) -> Result<Arc<ClientConfig>> {
        let Some(ca) = &self.ca_pem else {
            return Err(WireError::argument("a tls:// address needs the server's CA certificate (ca)"));
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca, "CA")? {
            roots.add(certificate).map_err(|e| bad("CA", e))?;
        }
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

    /// What a server presents.
    pub(crate) fn server(&self) -> Result<Arc<ServerConfig>> {
        let Some((chain, key)) = self.identity()? else {
            return Err(WireError::argument("a tls:// listener needs a certificate and its key"));
        };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| bad("setup", e))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|e| bad("certificate", e))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }

    /// The name to look for in the server's certificate.
    pub(crate) fn name(&self, host: &str) -> Result<ServerName<'static>> {
        let name = self.server_name.as_deref().unwrap_or(host);
        ServerName::try_from(name.to_owned()).map_err(|e| {
            WireError::new(Code::InvalidArgument, format!("{name:?} is not a name that a certificate can carry: {e}"))
        })
    }
}
