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

/// What a connection has carried.
#[derive(Default)]
struct Carried {
    counts: [AtomicU64; 2],
    /// What the client said, if the proxy records.
    said: Mutex<Vec<u8>>,
}

#[derive(Default)]
struct Shared {
    /// For the connections to come, in order.
    plans: Mutex<VecDeque<Plan>>,
    /// One for each connection.
    carried: Mutex<Vec<Arc<Carried>>>,
    open: Mutex<Vec<TcpStream>>,
    records: bool,
    /// Connections are accepted and closed.
    refuses: AtomicBool,
    /// A client that hangs up leaves the server's end as it is.
    keeps_server_side: AtomicBool,
    /// What comes that way is thrown away.
    stopped: [AtomicBool; 2],
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
        Proxy::with(address, Shared::default())
    }

    /// One that keeps what clients say.
    pub fn recording(address: &str) -> Proxy {
        Proxy::with(address, Shared { records: true, ..Shared::default() })
    }

    fn with(address: &str, shared: Shared) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, shared) = (listener.local_addr().unwrap().port(), Arc::new(shared));
        let (address, held) = (address.to_owned(), shared.clone());
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if held.stop.load(Ordering::SeqCst) {
                    return;
                }
                if held.refuses.load(Ordering::SeqCst) {
                    continue;
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
        let carried = self.shared.carried.lock().unwrap();
        carried.get(at).map_or(0, |carried| carried.counts[way as usize].load(Ordering::SeqCst))
    }

    /// What the client has said over connection `at`.
    pub fn recorded(&self, at: usize) -> Vec<u8> {
        self.shared.carried.lock().unwrap()[at].said.lock().unwrap().clone()
    }

    /// Accept and close what comes from now on, or not any more.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refuses.store(refuse, Ordering::SeqCst);
    }

    /// Throw away what comes that way from now on, or not any more.
    pub fn stop_way(&self, way: Way, stop: bool) {
        self.shared.stopped[way as usize].store(stop, Ordering::SeqCst);
    }

    /// Cut every connection at the client's end; the server hears nothing of it.
    pub fn cut_client_side(&self) {
        self.shared.keeps_server_side.store(true, Ordering::SeqCst);
        self.cut_all();
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.carried.lock().unwrap().len()
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
    let carried = Arc::new(Carried::default());
    shared.carried.lock().unwrap().push(carried.clone());
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
        let pipe = Pipe { way, plan, shared: shared.clone(), carried: carried.clone(), silent: silent.clone() };
        let close = close.clone();
        std::thread::spawn(move || {
            pipe.copy(from, to);
            if way == Way::ToClient || !pipe.shared.keeps_server_side.load(Ordering::SeqCst) {
                close();
            }
        });
    }
}

struct Pipe {
    way: Way,
    plan: Plan,
    shared: Arc<Shared>,
    carried: Arc<Carried>,
    silent: Arc<AtomicBool>,
}

impl Pipe {
    fn copy(&self, mut from: Source, mut to: To) {
        let (way, count) = (self.way, &self.carried.counts[self.way as usize]);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let Ok(n @ 1..) = from.read(&mut buffer) else { return };
            let done = count.load(Ordering::SeqCst);
            let room = |at: u64| n.min(at.saturating_sub(done) as usize);
            let n_out = match self.plan {
                Plan::Cut(w, at) | Plan::Silence(w, at) if w == way => room(at),
                Plan::Flip(w, at) if w == way && (done..done + n as u64).contains(&at) => {
                    buffer[(at - done) as usize] ^= 0x10;
                    n
                }
                _ => n,
            };
            if self.silent.load(Ordering::SeqCst) || self.shared.stopped[way as usize].load(Ordering::SeqCst) {
                continue;
            }
            count.fetch_add(n_out as u64, Ordering::SeqCst);
            if self.shared.records && way == Way::ToServer {
                self.carried.said.lock().unwrap().extend_from_slice(&buffer[..n_out]);
            }
            if to.write_all(&buffer[..n_out]).is_err() && !self.shared.keeps_server_side.load(Ordering::SeqCst) {
                return;
            }
            match self.plan {
                Plan::Cut(w, at) if w == way && done + n_out as u64 >= at => return,
                Plan::Silence(w, at) if w == way && done + n_out as u64 >= at => {
                    self.silent.store(true, Ordering::SeqCst);
                }
                _ => {}
            }
        }
    }
}
