//! A listening socket of any kind, and accepting from it until told to stop.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

use super::address::Address;
use super::connection::tune;
use crate::error::{Code, Result, WireError};

enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// A Unix socket that only this user can connect to, from the first moment on: its mode is set before it has a name.
fn listen_private(path: &Path) -> std::io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, 128)?;
    Ok(UnixListener::from(socket))
}

/// See the module.
pub(crate) struct Listener {
    kind: Kind,
    address: Address,
}

impl Listener {
    /// Listen at `address`; port 0 is replaced by the one the system chose.
    pub(crate) fn bind(address: &Address) -> Result<Listener> {
        let failed = |e: std::io::Error| {
            WireError::new(Code::InvalidArgument, format!("cannot listen at {address}: {e}; choose another address"))
        };
        let kind = match address {
            Address::Unix(path) => {
                // A socket that nobody listens at is left over from a server that died.
                if path.exists() && UnixStream::connect(path).is_err() {
                    let _ = std::fs::remove_file(path);
                }
                Kind::Unix(listen_private(path).map_err(failed)?, path.clone())
            }
            Address::Tcp(..) | Address::Tls(..) => {
                let found: Vec<SocketAddr> = address.resolve()?;
                let listener = TcpListener::bind(&found[..]).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                Kind::Tcp(listener)
            }
        };
        let address = match &kind {
            Kind::Tcp(listener) => address.with_port(listener.local_addr().map_err(failed)?.port()),
            Kind::Unix(..) => address.clone(),
        };
        Ok(Listener { kind, address })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The next connection; `None` once `stop` is readable.
    pub(crate) fn accept(&self, stop: impl AsFd) -> std::io::Result<Option<OwnedFd>> {
        loop {
            let fd = match &self.kind {
                Kind::Tcp(listener) => listener.as_fd(),
                Kind::Unix(listener, _) => listener.as_fd(),
            };
            let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN), PollFd::new(&stop, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            if !fds[1].revents().is_empty() {
                return Ok(None);
            }
            let accepted = match &self.kind {
                Kind::Tcp(listener) => listener.accept().and_then(|(stream, _)| {
                    tune(&stream)?;
                    Ok(OwnedFd::from(stream))
                }),
                Kind::Unix(listener, _) => listener.accept().map(|(stream, _)| OwnedFd::from(stream)),
            };
            match accepted {
                Ok(stream) => return Ok(Some(stream)),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Kind::Unix(_, path) = &self.kind {
            let _ = std::fs::remove_file(path);
        }
    }
}
