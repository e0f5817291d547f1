//! Ten thousand connections that begin and say no more. The server closes what is over its limit at once and the rest
//! when the time to authenticate is over; then it serves, although the crowd is still there.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use skytorch_wire::client::ConnectOptions;

use crate::good;

const CROWD: usize = 10_000;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// As long as it lives it is connected.
type Held = Box<dyn std::any::Any>;

fn connect(address: &str, bytes: &[u8]) -> std::io::Result<Held> {
    if let Some(path) = address.strip_prefix("unix://") {
        let mut stream = UnixStream::connect(path)?;
        // Some are hung up on before they have said this.
        let _ = stream.write_all(bytes);
        return Ok(Box::new(stream));
    }
    let mut stream = TcpStream::connect(address.trim_start_matches("tcp://"))?;
    let _ = stream.write_all(bytes);
    Ok(Box::new(stream))
}

pub(crate) fn half_open(options: &ConnectOptions) -> Result<(), String> {
    let start = Instant::now();
    let mut held = Vec::with_capacity(CROWD);
    for i in 0..CROWD {
        // Nothing, a part of the preface, or all of it.
        match connect(&options.address, &PREFACE[..i % (PREFACE.len() + 1)]) {
            Ok(stream) => held.push(stream),
            Err(e) => {
                println!("crowd: the machine lets one process have {i} connections, not {CROWD}: {e}");
                break;
            }
        }
    }
    let connected = start.elapsed();
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(what) = good::session(options) {
        if Instant::now() > deadline {
            return Err(format!("with {} half-open connections: {what}", held.len()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!(
        "crowd: {} half-open connections in {:.1} s; a session worked {:.1} s later, while they were held",
        held.len(),
        connected.as_secs_f64(),
        (start.elapsed() - connected).as_secs_f64()
    );
    Ok(())
}
