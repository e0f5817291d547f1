//! Addresses as people write them: `unix:///path`, `tcp://host:port`, `tls://host:port`.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Code, Result, WireError};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// Plain TCP; only for peers on this machine.
    Tcp(String, u16),
    /// TCP with TLS.
    Tls(String, u16),
}

impl Address {
    /// Host and port of a TCP address resolved; empty for a Unix socket.
    pub(crate) fn resolve(&self) -> Result<Vec<SocketAddr>> {
        let (Address::Tcp(host, port) | Address::Tls(host, port)) = self else { return Ok(Vec::new()) };
        let found = (host.as_str(), *port).to_socket_addrs().map_err(|e| {
            WireError::new(Code::Unreachable, format!("cannot resolve {host}: {e}; check the address {self}"))
        })?;
        Ok(found.collect())
    }

    /// True if only processes of this machine can be at the other end.
    pub(crate) fn is_local(&self) -> Result<bool> {
        Ok(self.resolve()?.iter().all(|address| address.ip().is_loopback()))
    }

    /// What goes into the `:authority` of a request.
    pub(crate) fn authority(&self) -> String {
        match self {
            Address::Unix(_) => "localhost".to_owned(),
            Address::Tcp(host, port) | Address::Tls(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Address::Tcp(host, port) | Address::Tls(host, port) => format!("{host}:{port}"),
        }
    }

    /// The same address with the port that the system chose.
    pub(crate) fn with_port(&self, port: u16) -> Address {
        match self {
            Address::Unix(path) => Address::Unix(path.clone()),
            Address::Tcp(host, _) => Address::Tcp(host.clone(), port),
            Address::Tls(host, _) => Address::Tls(host.clone(), port),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp(..) => write!(f, "tcp://{}", self.authority()),
            Address::Tls(..) => write!(f, "tls://{}", self.authority()),
        }
    }
}

impl FromStr for Address {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Address> {
        let bad = || {
            WireError::argument(format!(
                "{text:?} is not an address; write unix:///path, tcp://host:port or tls://host:port"
            ))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        if scheme == "unix" {
            return if rest.starts_with('/') { Ok(Address::Unix(PathBuf::from(rest))) } else { Err(bad()) };
        }
        let (host, port) = rest.rsplit_once(':').ok_or_else(bad)?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().map_err(|_| bad())?;
        match scheme {
            _ if host.is_empty() || host.contains(['[', ']']) => Err(bad()),
            "tcp" => Ok(Address::Tcp(host.to_owned(), port)),
            "tls" => Ok(Address::Tls(host.to_owned(), port)),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read_back() {
        for text in ["unix:///tmp/x.sock", "tcp://127.0.0.1:80", "tls://gpu.example:7443", "tcp://[::1]:9"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "x",
            "unix://relative",
            "tcp://:80",
            "tcp://host",
            "tcp://host:99999",
            "http://host:80",
            "tcp://[[a]]:1",
        ] {
            assert_eq!(text.parse::<Address>().unwrap_err().code, Code::InvalidArgument, "{text}");
        }
    }
}
