//! A listening socket of any kind, and accepting from it until told to stop.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, fchmod};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::geteuid;

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

/// Make the folder of a socket, or see that no other user could put a socket of theirs in its place.
fn check_folder(path: &Path) -> Result<()> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    match std::fs::metadata(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let made = std::fs::DirBuilder::new().mode(0o700).create(folder);
            made.map_err(|e| WireError::argument(format!("cannot make the folder {}: {e}", folder.display())))
        }
        Ok(found) if found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0 => Err(WireError::argument(format!(
            "other users can replace what is in {}: take a folder with mode 0700 for the socket",
            folder.display()
        ))),
        _ => Ok(()),
    }
}

/// Refuse the process at the other end of a Unix socket unless it is ours or root's. The mode of the socket says the
/// same; this holds also where somebody has changed it, and it keeps a client from showing its token to a stranger.
pub(super) fn check_peer(stream: &UnixStream, who: &str) -> Result<()> {
    let peer = socket_peercred(stream)
        .map_err(|e| WireError::new(Code::Unauthenticated, format!("the system does not say who {who} is: {e}")))?;
    let user = geteuid();
    if peer.uid == user || peer.uid.is_root() {
        return Ok(());
    }
    let (peer, user) = (peer.uid.as_raw(), user.as_raw());
    let text = format!("{who} is user {peer} and this side user {user}: a Unix socket is for one user; use tls://");
    Err(WireError::new(Code::Unauthenticated, text))
}

/// A connection that was accepted.
pub(crate) struct Incomer {
    pub(crate) fd: OwnedFd,
    /// Over a Unix socket.
    pub(crate) local: bool,
    /// Why nothing may be served to it.
    pub(crate) refused: Option<WireError>,
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
                check_folder(path)?;
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
    pub(crate) fn accept(&self, stop: impl AsFd) -> std::io::Result<Option<Incomer>> {
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
                    Ok(Incomer { fd: OwnedFd::from(stream), local: false, refused: None })
                }),
                Kind::Unix(listener, _) => listener.accept().map(|(stream, _)| {
                    let refused = check_peer(&stream, "the client").err();
                    Incomer { fd: OwnedFd::from(stream), local: true, refused }
                }),
            };
            match accepted {
                Ok(incomer) => return Ok(Some(incomer)),
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
