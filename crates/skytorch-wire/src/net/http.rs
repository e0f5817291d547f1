//! HTTP/2 as both sides use it: windows, keepalive, the headers of a gRPC call, and opening a connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use hyper::client::conn::http2::SendRequest;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::{TlsConnector, TlsStream};

use super::address::Address;
use super::body::OutBody;
use super::connection::{Stream, dial, nobody_listens, unreachable};
use super::credential::Credential;
use super::recorder::Recorder;
use super::socket::Traffic;
use super::tls::{BUFFER_BYTES, TlsOptions};
use crate::driver::{Driver, Spawner, Stop};
use crate::error::{Code, Result, WireError};
use crate::limits;

/// Largest HTTP/2 frame that either side takes.
const FRAME_BYTES: u32 = 1 << 20;
/// Bytes of one stream that HTTP/2 takes from a body before they are on their way.
const SEND_BUFFER_BYTES: usize = 4 << 20;
/// A session asks a silent server after this long, and gives up after the second. Lanes do not ask: the server may
/// keep one waiting for as long as its executor has no room, and a lane is ended with its session. Servers do not ask
/// either: TCP's own keepalive tells them of a client that vanished, whatever their threads are doing.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10));

/// Paths of the raw methods; everything else belongs to the control services.
pub(crate) const OPEN_PATH: &str = "/skytorch.v1.Session/Open";
pub(crate) const UPLOAD_PATH: &str = "/skytorch.v1.Transfer/Upload";
pub(crate) const STATUS_PATH: &str = "/skytorch.v1.Transfer/Status";
/// What the calls of health begin with.
pub(crate) const HEALTH_PREFIX: &str = "/grpc.health.v1.Health/";
/// Header or trailer with the number of a [`Code`].
pub(crate) const CODE_HEADER: &str = "skytorch-code";

/// Whom to connect to and how.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: Address,
    pub(crate) tls: Option<TlsOptions>,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) traffic: Arc<Traffic>,
}

impl Target {
    fn tls_config(&self) -> Result<Option<Arc<ClientConfig>>> {
        match (&self.address, &self.tls) {
            (Address::Tls(..), Some(tls)) => tls.client().map(Some),
            (Address::Tls(..), None) => TlsOptions::default().client().map(Some),
            _ => Ok(None),
        }
    }
}

/// A wait that ended early, in words.
pub(crate) fn stopped(stop: Stop, what: &str) -> WireError {
    match stop {
        Stop::Interrupted => WireError::new(Code::Interrupted, format!("interrupted while {what}")),
        Stop::TimedOut => WireError::new(Code::Timeout, format!("timed out while {what}")),
    }
}

/// Why there is no connection.
pub(crate) enum Unconnected {
    /// The machine is there and nobody listens: the server is gone.
    Gone(WireError),
    Failed(WireError),
}

impl From<WireError> for Unconnected {
    fn from(error: WireError) -> Unconnected {
        Unconnected::Failed(error)
    }
}

impl From<Unconnected> for WireError {
    fn from(unconnected: Unconnected) -> WireError {
        let (Unconnected::Gone(error) | Unconnected::Failed(error)) = unconnected;
        error
    }
}

/// Connect `driver` to the target and start HTTP/2 on it. With `keepalive` a silent server is
/// given up. `ended` is called when the connection is over.
pub(crate) fn connect(
    driver: &Driver,
    target: &Target,
    deadline: Instant,
    keepalive: bool,
    ended: impl FnOnce(Option<hyper::Error>) + Send + 'static,
) -> std::result::Result<SendRequest<OutBody>, Unconnected> {
    let tls = target.tls_config()?;
    let socket = dial(&target.address, deadline, target.traffic.clone(), target.recorder.clone());
    let socket = socket.map_err(|e| match nobody_listens(&e) {
        true => Unconnected::Gone(unreachable(&target.address, &e)),
        false => Unconnected::Failed(unreachable(&target.address, &e)),
    })?;
    driver.attach(socket.readiness());
    let stream = match (tls, &target.address) {
        (Some(config), Address::Tls(host, _)) => {
            let name = target.tls.as_ref().map_or_else(|| TlsOptions::default().name(host), |tls| tls.name(host))?;
            let mut stream = driver
                .block_on(TlsConnector::from(config).connect(name, socket), Some(deadline))
                .map_err(|stop| stopped(stop, &format!("shaking hands with {}", target.address)))?
                .map_err(|e| refused(&target.address, &e))?;
            stream.get_mut().1.set_buffer_limit(Some(BUFFER_BYTES));
            Stream::Tls(Box::new(TlsStream::Client(stream)))
        }
        _ => Stream::Plain(socket),
    };
    let handshake = client_builder(driver, keepalive).handshake(stream);
    let (sender, connection) = driver
        .block_on(handshake, Some(deadline))
        .map_err(|stop| stopped(stop, &format!("opening HTTP/2 with {}", target.address)))?
        .map_err(|e| WireError::new(Code::Unreachable, format!("{} does not speak HTTP/2: {e}", target.address)))?;
    driver.spawner().spawn(async move { ended(connection.await.err()) });
    Ok(sender)
}

fn refused(address: &Address, e: &std::io::Error) -> WireError {
    let code = match e.kind() {
        std::io::ErrorKind::InvalidData => Code::Unauthenticated,
        _ => Code::Unreachable,
    };
    WireError::new(code, format!("TLS with {address} failed: {e}; check the CA certificate and the server's name"))
}

fn client_builder(driver: &Driver, keepalive: bool) -> hyper::client::conn::http2::Builder<Spawner> {
    let mut builder = hyper::client::conn::http2::Builder::new(driver.spawner());
    builder
        .timer(driver.timer())
        .adaptive_window(false)
        .initial_stream_window_size(limits::WINDOW_BYTES)
        .initial_connection_window_size(limits::WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(keepalive.then_some(KEEPALIVE.0))
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true);
    builder
}

/// The server's side of the same settings; `queue_bytes` may have arrived and not been taken.
pub(crate) fn server_builder(driver: &Driver, queue_bytes: u32) -> hyper::server::conn::http2::Builder<Spawner> {
    let mut builder = hyper::server::conn::http2::Builder::new(driver.spawner());
    builder
        .timer(driver.timer())
        .adaptive_window(false)
        .initial_stream_window_size(queue_bytes)
        .initial_connection_window_size(queue_bytes)
        .max_frame_size(FRAME_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(64 << 10)
        .max_concurrent_streams(64);
    builder
}

/// The request of a gRPC call.
pub(crate) fn request<B>(target: &Target, path: &str, token: Option<&Credential>, body: B) -> Result<Request<B>> {
    let scheme = if matches!(target.address, Address::Tls(..)) { "https" } else { "http" };
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(target.address.authority())
        .path_and_query(path)
        .build()
        .map_err(|e| WireError::argument(format!("{} is no address for a request: {e}", target.address)))?;
    let mut request = Request::post(uri)
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(body)
        .map_err(|e| WireError::new(Code::Internal, format!("cannot make a request: {e}")))?;
    if let Some(token) = token {
        request.headers_mut().insert(http::header::AUTHORIZATION, token.bearer()?);
    }
    Ok(request)
}

/// The gRPC status that says this.
pub(crate) fn trailers(error: &WireError) -> HeaderMap {
    let status = match error.code {
        Code::Ok => 0,
        Code::InvalidArgument | Code::Protocol => 3,
        Code::Timeout => 4,
        Code::DeviceNotFound => 5,
        Code::LimitExceeded => 8,
        Code::ServerBusy | Code::VersionMismatch | Code::SessionClosed => 9,
        Code::NotSupported => 12,
        Code::Unreachable | Code::ConnectionLost => 14,
        Code::Unauthenticated => 16,
        _ => 13,
    };
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", HeaderValue::from(status));
    headers.insert(CODE_HEADER, HeaderValue::from(error.code.number()));
    if error.code != Code::Ok
        && let Ok(message) = HeaderValue::try_from(percent(&error.message))
    {
        headers.insert("grpc-message", message);
    }
    headers
}

/// gRPC's way to write a message in a header.
fn percent(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn unpercent(message: &str) -> String {
    let mut out = Vec::with_capacity(message.len());
    let mut rest = message.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex =
            after.get(..2).and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok());
        match hex {
            Some(value) if byte == b'%' => {
                out.push(value);
                rest = &after[2..];
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What headers or trailers say about a call; `None` if they carry no gRPC status.
pub(crate) fn status_of(headers: &HeaderMap) -> Option<Result<()>> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.parse::<u32>().ok();
    let status = number("grpc-status")?;
    if status == 0 {
        return Some(Ok(()));
    }
    let code = number(CODE_HEADER).and_then(Code::from_number).unwrap_or(match status {
        16 => Code::Unauthenticated,
        12 => Code::NotSupported,
        14 => Code::Unreachable,
        _ => Code::Protocol,
    });
    let message = headers.get("grpc-message").and_then(|m| m.to_str().ok()).map_or_else(String::new, unpercent);
    Some(Err(WireError::new(code, message)))
}

/// A response without messages that says why.
pub(crate) fn refusal(error: &WireError) -> Response<OutBody> {
    let mut response = response(OutBody::parts([], None));
    response.headers_mut().extend(trailers(error));
    response
}

/// The head of a gRPC response.
pub(crate) fn response(body: OutBody) -> Response<OutBody> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_headers() {
        let error = WireError::new(Code::ServerBusy, "größe 100%\nof it");
        assert_eq!(status_of(&trailers(&error)), Some(Err(error)));
        assert_eq!(status_of(&HeaderMap::new()), None);
    }
}
