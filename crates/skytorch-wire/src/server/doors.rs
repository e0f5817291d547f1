//! Who is connected: guests that have not shown a token or ticket, and clients that have.
//!
//! Whoever reaches the address can open connections, so guests have a room of their own. The subtle thing: when it is
//! full, the one that has waited longest goes, and not the newcomer; a client that shows its token at once gets in
//! through any number of connections that never do.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::net::{Shutdown, shutdown};

use crate::driver::{Driver, Readiness};
use crate::error::{Result, WireError};

/// A connection that is driven somewhere; it is over once both are gone.
#[derive(Clone)]
pub(super) struct Guest {
    driver: Weak<Driver>,
    readiness: Weak<Readiness>,
}

impl Guest {
    pub(super) fn new(driver: &Arc<Driver>, readiness: &Arc<Readiness>) -> Guest {
        Guest { driver: Arc::downgrade(driver), readiness: Arc::downgrade(readiness) }
    }

    fn is_here(&self) -> bool {
        self.driver.strong_count() > 0
    }

    fn turn_out(&self) {
        if let Some(readiness) = self.readiness.upgrade() {
            // Its thread sees the end of the connection, whatever it waits for.
            let _ = shutdown(readiness.fd(), Shutdown::Both);
        }
    }
}

#[derive(Default)]
struct Rooms {
    guests: VecDeque<Guest>,
    clients: Vec<Weak<Driver>>,
}

/// See the module.
pub(super) struct Doors {
    max_guests: usize,
    max_clients: usize,
    rooms: Mutex<Rooms>,
}

impl Doors {
    pub(super) fn new(max_guests: usize, max_clients: usize) -> Doors {
        Doors { max_guests, max_clients, rooms: Mutex::default() }
    }

    /// A connection was accepted.
    pub(super) fn enter(&self, guest: Guest) {
        let mut rooms = self.rooms.lock();
        rooms.guests.retain(Guest::is_here);
        if rooms.guests.len() >= self.max_guests
            && let Some(oldest) = rooms.guests.pop_front()
        {
            oldest.turn_out();
        }
        rooms.guests.push_back(guest);
    }

    /// It has shown a token or ticket.
    pub(super) fn admit(&self, guest: &Guest) -> Result<()> {
        let mut rooms = self.rooms.lock();
        rooms.clients.retain(|driver| driver.strong_count() > 0);
        if rooms.clients.len() >= self.max_clients {
            return Err(WireError::limit(format!(
                "the server has {} connections, its limit; close some or raise --max-connections",
                self.max_clients
            )));
        }
        rooms.guests.retain(|other| !other.driver.ptr_eq(&guest.driver));
        rooms.clients.push(guest.driver.clone());
        Ok(())
    }

    /// Everybody.
    pub(super) fn drivers(&self) -> Vec<Arc<Driver>> {
        let rooms = self.rooms.lock();
        let guests = rooms.guests.iter().map(|guest| &guest.driver);
        guests.chain(&rooms.clients).filter_map(Weak::upgrade).collect()
    }
}
