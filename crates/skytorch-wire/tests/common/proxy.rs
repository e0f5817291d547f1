//! A proxy between a client and a server that cuts connections at bytes of a test's choice.
//!
//! It knows no frames: a cut after any byte of either direction is a cut in front of, inside or behind any message. The
//! direction that is cut delivers exactly so many bytes; then both ends are closed. Later connections pass untouched
//! unless a test says otherwise.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// What happens to one connection.
#[derive(Clone, Copy, Debug)]
pub enum Plan {
    Pass,
    /// After this many bytes that way.
    Cut(Way, u64),
    /// After this many bytes that way nothing passes any more, in either direction, and nobody is told.
    Silence(Way, u64),
    /// The byte at this offset that way is changed.
    Flip(Way, u64),
}

#[derive(Default)]
struct Shared {
    /// For the connections to come, in order.
    plans: Mutex<VecDeque<Plan>>,
    /// One for each connection.
    counts: Mutex<Vec<Arc<[AtomicU64; 2]>>>,
    open: Mutex<Vec<TcpStream>>,
    stop: AtomicBool,
}

/// See the module.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

type Source = Box<dyn Read + Send>;
type To = Box<dyn Write + Send>;

enum Upstream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Upstream {
    fn connect(address: &str) -> std::io::Result<Upstream> {
        match address.split_once("://").unwrap() {
            ("unix", path) => UnixStream::connect(path).map(Upstream::Unix),
            (_, to) => TcpStream::connect(to).inspect(|stream| stream.set_nodelay(true).unwrap()).map(Upstream::Tcp),
        }
    }

    fn halves(self) -> (Source, To, Box<dyn Fn() + Send + Sync>) {
        match self {
            Upstream::Tcp(s) => {
                let (r, w) = (s.try_clone().unwrap(), s.try_clone().unwrap());
                (Box::new(r), Box::new(w), Box::new(move || drop(s.shutdown(Shutdown::Both))))
            }
            Upstream::Unix(s) => {
                let (r, w) = (s.try_clone().unwrap(), s.try_clone().unwrap());
                (Box::new(r), Box::new(w), Box::new(move || drop(s.shutdown(Shutdown::Both))))
            }
        }
    }
}

impl Proxy {
    /// In front of a server's address.
    pub fn start(address: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, shared) = (listener.local_addr().unwrap().port(), Arc::<Shared>::default());
        let (address, held) = (address.to_owned(), shared.clone());
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if held.stop.load(Ordering::SeqCst) {
                    return;
                }
                let plan = held.plans.lock().unwrap().pop_front().unwrap_or(Plan::Pass);
                if let Ok(server) = Upstream::connect(&address) {
                    join(&held, client.unwrap(), server, plan);
                }
            }
        });
        Proxy { port, shared, thread: Some(thread) }
    }

    /// Where to connect, by the scheme of the server.
    pub fn address(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// What becomes of the next connection that has none yet.
    pub fn plan(&self, plan: Plan) {
        self.shared.plans.lock().unwrap().push_back(plan);
    }

    /// How many bytes connection `at` has carried that way.
    pub fn carried(&self, at: usize, way: Way) -> u64 {
        self.shared.counts.lock().unwrap().get(at).map_or(0, |counts| counts[way as usize].load(Ordering::SeqCst))
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.counts.lock().unwrap().len()
    }

    /// Wait until there were so many.
    pub fn wait_for_connections(&self, n: usize) {
        let start = Instant::now();
        while self.connections() < n {
            assert!(start.elapsed() < Duration::from_secs(20), "{} connections instead of {n}", self.connections());
            std::thread::yield_now();
        }
    }

    /// Cut every connection that is open.
    pub fn cut_all(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.cut_all();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn join(shared: &Arc<Shared>, client: TcpStream, server: Upstream, plan: Plan) {
    client.set_nodelay(true).unwrap();
    let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    shared.counts.lock().unwrap().push(counts.clone());
    shared.open.lock().unwrap().push(client.try_clone().unwrap());
    let (from_server, to_server, close_server) = server.halves();
    let (from_client, to_client) = (client.try_clone().unwrap(), client.try_clone().unwrap());
    let close = Arc::new(move || {
        close_server();
        let _ = client.shutdown(Shutdown::Both);
    });
    let silent = Arc::new(AtomicBool::new(false));
    for (way, from, to) in [
        (Way::ToServer, Box::new(from_client) as Source, to_server),
        (Way::ToClient, from_server, Box::new(to_client) as To),
    ] {
        let (counts, close, silent) = (counts.clone(), close.clone(), silent.clone());
        std::thread::spawn(move || {
            copy(from, to, way, plan, &counts[way as usize], &silent);
            close();
        });
    }
}

fn copy(mut from: Source, mut to: To, way: Way, plan: Plan, count: &AtomicU64, silent: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let Ok(n @ 1..) = from.read(&mut buffer) else { return };
        let done = count.load(Ordering::SeqCst);
        let room = |at: u64| n.min(at.saturating_sub(done) as usize);
        let n_out = match plan {
            Plan::Cut(w, at) | Plan::Silence(w, at) if w == way => room(at),
            Plan::Flip(w, at) if w == way && (done..done + n as u64).contains(&at) => {
                buffer[(at - done) as usize] ^= 0x10;
                n
            }
            _ => n,
        };
        if silent.load(Ordering::SeqCst) {
            continue;
        }
        count.fetch_add(n_out as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..n_out]).is_err() {
            return;
        }
        match plan {
            Plan::Cut(w, at) if w == way && done + n_out as u64 >= at => return,
            Plan::Silence(w, at) if w == way && done + n_out as u64 >= at => silent.store(true, Ordering::SeqCst),
            _ => {}
        }
    }
}
