//! The operating system of a history: virtual time, processes that can be killed between any two steps, and the
//! dice. A process is a future; a killed one is dropped where it stands.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A process.
pub(crate) type Pid = i32;

/// A time or a stretch of it, in milliseconds.
pub(crate) type Ms = u64;

type Body = Pin<Box<dyn Future<Output = ()>>>;

struct Slot {
    /// Absent while it is being polled.
    body: Option<Body>,
    name: String,
    /// The host; none for what is on its way in the network, which nobody can kill.
    host: Option<usize>,
    killed: bool,
    /// Somebody has sent SIGTERM.
    told: bool,
    watchers: Vec<Pid>,
}

#[derive(Default)]
struct Inner {
    now: Ms,
    sequence: u64,
    due: BinaryHeap<Reverse<(Ms, u64, Pid)>>,
    slots: BTreeMap<Pid, Slot>,
    next_pid: Pid,
    current: Pid,
    dice: u64,
    /// Chance of a crash at each step of a process, in 1/10,000.
    crashes: u64,
    tracing: bool,
}

/// See the text of the module. Clones are the same kernel.
#[derive(Clone, Default)]
pub(crate) struct Kernel(Rc<RefCell<Inner>>);

impl Kernel {
    pub(crate) fn new(seed: u64, tracing: bool) -> Self {
        let kernel = Self::default();
        {
            let mut inner = kernel.0.borrow_mut();
            inner.dice = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            inner.next_pid = 1;
            inner.tracing = tracing;
        }
        // Neighbouring seeds begin alike.
        for _ in 0..8 {
            kernel.below(2);
        }
        kernel
    }

    pub(crate) fn now(&self) -> Ms {
        self.0.borrow().now
    }

    pub(crate) fn set_crashes(&self, per_ten_thousand: u64) {
        self.0.borrow_mut().crashes = per_ten_thousand;
    }

    /// A number below `limit`: SplitMix64, so that a seed means the same for ever.
    pub(crate) fn below(&self, limit: u64) -> u64 {
        let mut inner = self.0.borrow_mut();
        inner.dice = inner.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = inner.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit.max(1)
    }

    pub(crate) fn percent(&self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn log(&self, text: impl FnOnce() -> String) {
        let (tracing, now, name) = {
            let inner = self.0.borrow();
            let name = inner.tracing.then(|| {
                inner
                    .slots
                    .get(&inner.current)
                    .map_or_else(String::new, |slot| format!("{}[{}]", slot.name, inner.current))
            });
            (inner.tracing, inner.now, name)
        };
        if tracing {
            println!(
                "{:>9.3} {:<16} {}",
                now as f64 / 1000.0,
                name.unwrap_or_default(),
                text()
            );
        }
    }

    /// Starts a process.
    pub(crate) fn spawn<F: Future<Output = ()> + 'static>(
        &self,
        name: &str,
        host: Option<usize>,
        body: impl FnOnce(Env) -> F,
    ) -> Pid {
        let pid = {
            let mut inner = self.0.borrow_mut();
            inner.next_pid += 1;
            inner.next_pid
        };
        let env = Env {
            kernel: self.clone(),
            pid,
        };
        let body: Body = Box::pin(body(env));
        let slot = Slot {
            body: Some(body),
            name: name.to_owned(),
            host,
            killed: false,
            told: false,
            watchers: Vec::new(),
        };
        self.0.borrow_mut().slots.insert(pid, slot);
        self.wake_at(self.now(), pid);
        pid
    }

    fn wake_at(&self, at: Ms, pid: Pid) {
        let mut inner = self.0.borrow_mut();
        inner.sequence += 1;
        let sequence = inner.sequence;
        inner.due.push(Reverse((at, sequence, pid)));
    }

    pub(crate) fn wake(&self, pid: Pid) {
        self.wake_at(self.now(), pid);
    }

    pub(crate) fn is_alive(&self, pid: Pid) -> bool {
        self.0.borrow().slots.get(&pid).is_some_and(|slot| !slot.killed)
    }

    /// Wakes the watcher when the process ends.
    pub(crate) fn watch(&self, pid: Pid, watcher: Pid) {
        if let Some(slot) = self.0.borrow_mut().slots.get_mut(&pid) {
            slot.watchers.push(watcher);
        }
    }

    /// Sends SIGTERM.
    pub(crate) fn tell(&self, pid: Pid) {
        if let Some(slot) = self.0.borrow_mut().slots.get_mut(&pid) {
            slot.told = true;
        }
        self.wake(pid);
    }

    pub(crate) fn kill(&self, pid: Pid) {
        let dead = {
            let mut inner = self.0.borrow_mut();
            match inner.slots.get_mut(&pid) {
                // Cannot be dropped while it runs.
                Some(slot) if slot.body.is_none() => {
                    slot.killed = true;
                    return;
                }
                Some(_) => inner.slots.remove(&pid),
                None => None,
            }
        };
        if let Some(dead) = dead {
            self.mourn(dead);
        }
    }

    fn mourn(&self, dead: Slot) {
        for watcher in &dead.watchers {
            self.wake(*watcher);
        }
        drop(dead);
    }

    /// The processes of a host whose name begins so.
    pub(crate) fn processes(&self, host: Option<usize>, name: &str) -> Vec<Pid> {
        self.0
            .borrow()
            .slots
            .iter()
            .filter(|(_, slot)| {
                slot.host.is_some()
                    && (host.is_none() || slot.host == host)
                    && slot.name.starts_with(name)
                    && !slot.killed
            })
            .map(|(pid, _)| *pid)
            .collect()
    }

    /// Lets time pass until `end`, or until nothing will ever happen.
    pub(crate) fn run_until(&self, end: Ms) {
        loop {
            let (pid, body) = {
                let mut inner = self.0.borrow_mut();
                match inner.due.peek() {
                    Some(Reverse((at, ..))) if *at <= end => {}
                    _ => {
                        inner.now = inner.now.max(end);
                        return;
                    }
                }
                let Some(Reverse((at, _, pid))) = inner.due.pop() else {
                    return;
                };
                inner.now = at;
                inner.current = pid;
                let body = inner.slots.get_mut(&pid).and_then(|slot| slot.body.take());
                (pid, body)
            };
            let Some(mut body) = body else { continue };
            let done = body
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready();
            let dead = {
                let mut inner = self.0.borrow_mut();
                match inner.slots.get_mut(&pid) {
                    Some(slot) if !done && !slot.killed => {
                        slot.body = Some(body);
                        continue;
                    }
                    _ => inner.slots.remove(&pid),
                }
            };
            drop(body);
            if let Some(dead) = dead {
                self.mourn(dead);
            }
        }
    }

    /// Ends everything, so that processes that hold each other are freed.
    pub(crate) fn shut_down(&self) {
        let slots = std::mem::take(&mut self.0.borrow_mut().slots);
        drop(slots);
        self.0.borrow_mut().due.clear();
    }
}

/// What a process knows of itself.
#[derive(Clone)]
pub(crate) struct Env {
    pub(crate) kernel: Kernel,
    pub(crate) pid: Pid,
}

impl Env {
    pub(crate) fn sleep(&self, time: Ms) -> Sleep {
        Sleep {
            until: self.kernel.now() + time,
            armed: false,
            env: self.clone(),
        }
    }

    /// A place where the process may die: before and after everything that others can see.
    pub(crate) async fn step(&self) {
        let crashes = self.kernel.0.borrow().crashes;
        if crashes > 0 && self.kernel.below(10_000) < crashes {
            self.die().await;
        }
        let time = self.kernel.below(4);
        self.sleep(time).await;
    }

    /// Dies here.
    pub(crate) async fn die(&self) {
        self.kernel.log(|| "dies".to_owned());
        self.kernel.kill(self.pid);
        std::future::pending::<()>().await;
    }

    pub(crate) fn is_told(&self) -> bool {
        self.kernel
            .0
            .borrow()
            .slots
            .get(&self.pid)
            .is_some_and(|slot| slot.told)
    }

    /// Returns when this is so. Whoever makes it so wakes the process.
    pub(crate) async fn until(&self, condition: impl Fn() -> bool) {
        std::future::poll_fn(|_| {
            if condition() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Returns when that process has ended.
    pub(crate) async fn gone(&self, pid: Pid) {
        self.kernel.watch(pid, self.pid);
        self.until(|| !self.kernel.is_alive(pid)).await;
    }

    pub(crate) fn wake_self(&self) {
        self.kernel.wake(self.pid);
    }
}

/// See [`Env::sleep`].
pub(crate) struct Sleep {
    env: Env,
    until: Ms,
    armed: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.env.kernel.now() >= self.until && self.armed {
            return Poll::Ready(());
        }
        if !self.armed {
            self.armed = true;
            self.env.kernel.wake_at(self.until, self.env.pid);
        }
        Poll::Pending
    }
}

/// The result of whatever ends first; the earlier one where both do.
pub(crate) enum Either<A, B> {
    First(A),
    Second(B),
}

/// Waits for the first of two.
pub(crate) async fn either<A, B>(
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> Either<A, B> {
    let (mut first, mut second) = (Box::pin(first), Box::pin(second));
    std::future::poll_fn(|context| {
        if let Poll::Ready(value) = first.as_mut().poll(context) {
            return Poll::Ready(Either::First(value));
        }
        second.as_mut().poll(context).map(Either::Second)
    })
    .await
}
