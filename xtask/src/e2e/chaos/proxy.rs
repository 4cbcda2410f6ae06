//! Bad weather between agents and server: a TCP proxy that delays, cuts and refuses connections.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::dice::Dice;

/// What happens to connections at the moment.
#[derive(Debug, Default)]
pub(super) struct Weather {
    /// Every piece of data waits up to this many milliseconds.
    delay_ms: AtomicU64,
    /// One piece of data in so many is the last of its connection; 0 = none.
    cut_one_in: AtomicU64,
    /// Nothing gets through, and whatever is open is cut.
    closed: AtomicBool,
    /// How many connections were cut or refused.
    broken: AtomicU64,
    over: AtomicBool,
}

impl Weather {
    pub(super) fn set(&self, delay_ms: u64, cut_one_in: u64, closed: bool) {
        self.delay_ms.store(delay_ms, Ordering::Relaxed);
        self.cut_one_in.store(cut_one_in, Ordering::Relaxed);
        self.closed.store(closed, Ordering::Relaxed);
    }

    pub(super) fn broken(&self) -> u64 {
        self.broken.load(Ordering::Relaxed)
    }

    fn passes(&self, dice: &mut Dice) -> bool {
        let cut = self.cut_one_in.load(Ordering::Relaxed);
        let breaks = self.closed.load(Ordering::Relaxed) || (cut > 0 && dice.below(cut) == 0);
        if breaks {
            self.broken.fetch_add(1, Ordering::Relaxed);
        }
        !breaks
    }
}

/// Stands in front of a server until it is dropped.
pub(super) struct Proxy {
    pub(super) port: u16,
    pub(super) weather: Arc<Weather>,
}

impl Proxy {
    pub(super) fn start(server: u16, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("opening a port for the proxy")?;
        let port = listener.local_addr()?.port();
        let weather = Arc::new(Weather::default());
        let shared = Arc::clone(&weather);
        std::thread::spawn(move || accept(&listener, server, &shared, seed));
        Ok(Self { port, weather })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.weather.over.store(true, Ordering::Relaxed);
        // Wakes the listener up; an error means that it is gone already.
        let _gone = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn accept(listener: &TcpListener, server: u16, weather: &Arc<Weather>, seed: u64) {
    for (number, client) in (0..).zip(listener.incoming()) {
        if weather.over.load(Ordering::Relaxed) {
            return;
        }
        let mut dice = Dice::new(seed ^ number);
        let Ok(client) = client else { continue };
        if !weather.passes(&mut dice) {
            continue;
        }
        // A server that is down refuses; closing the client's connection says the same.
        let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
            continue;
        };
        let (Ok(client2), Ok(server2)) = (client.try_clone(), server.try_clone()) else {
            continue;
        };
        let (up, down) = (Arc::clone(weather), Arc::clone(weather));
        let mut other = Dice::new(seed ^ !number);
        std::thread::spawn(move || carry(client, server, &up, &mut dice));
        std::thread::spawn(move || carry(server2, client2, &down, &mut other));
    }
}

/// Carries bytes one way until one side ends or the weather cuts the connection.
fn carry(mut from: TcpStream, mut to: TcpStream, weather: &Weather, dice: &mut Dice) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            break;
        }
        let delay = weather.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            std::thread::sleep(Duration::from_millis(dice.below(delay)));
        }
        if !weather.passes(dice) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // Both ways: half a connection is of no use to HTTP. Errors mean that it is closed already.
    let _closed = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
