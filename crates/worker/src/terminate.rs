//! `daemon --stop`: ends daemons of this machine, of either kind, without asking any server.
//!
//! Whom to end is read from the register that all agents of the machine share. A process is signalled only
//! if it surely is the one that entered itself there, and through a descriptor that keeps naming it.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clearml_intake::slot::Instance;
use clearml_intake::{Identity, Register, SlotError};
use clearml_support::process::ProcessIdentity;
use clearml_support::text::printable_in_line;
use clearml_task_model::WorkerId;
use rustix::process::Signal;

use crate::serve::say;

/// How long a daemon may take to end before it is asked again, and then before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for one that has several tasks to end.
const DYNAMIC_PATIENCE: Duration = Duration::from_secs(120);
/// How often to look whether it has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Whom to stop.
#[derive(Debug, Clone, Default)]
pub struct StopRequest {
    /// These ids, one daemon each; if empty, the one daemon that `identity` describes.
    pub ids: Vec<String>,
    /// Who a daemon started with the same arguments would be.
    pub identity: Identity,
    /// Time to end by itself, twice, before it is killed; ten seconds, or two minutes for a daemon with a
    /// pool of GPUs, when `None`.
    pub patience: Option<Duration>,
}

/// Ends daemons, one after the other, and says so on standard output. Returns whether all were found.
/// Blocks until they have ended; one that can't be ended is reported and counts as found.
///
/// # Errors
///
/// When the register can't be read.
pub fn stop_daemons(register: &Register, request: &StopRequest) -> Result<bool, SlotError> {
    let ids: Vec<WorkerId> = request.ids.iter().map(|id| id.trim().into()).collect();
    if ids.is_empty() {
        let wanted = match request.identity.fixed() {
            Some(id) => Wanted::Id(id),
            None => Wanted::Prefix(request.identity.prefix()),
        };
        return stop_one(register, request, &wanted);
    }
    let mut all = true;
    for id in ids {
        all &= stop_one(register, request, &Wanted::Id(id))?;
    }
    Ok(all)
}

enum Wanted {
    Id(WorkerId),
    Prefix(String),
}

impl Wanted {
    fn is(&self, instance: &Instance) -> bool {
        match self {
            Self::Id(id) => instance.worker == *id,
            Self::Prefix(prefix) => instance.worker.as_str().starts_with(prefix),
        }
    }
}

fn stop_one(register: &Register, request: &StopRequest, wanted: &Wanted) -> Result<bool, SlotError> {
    for instance in register
        .instances()?
        .iter()
        .filter(|instance| wanted.is(instance))
    {
        // Every user of the machine can write into the register.
        let worker = printable_in_line(instance.worker.as_str());
        let Some(process) = instance.process() else {
            say(&format!(
                "clearml_agent: Warning: process {} may not be the agent that registered as {worker}; it is left alone",
                instance.pid
            ));
            continue;
        };
        say(&format!(
            "Terminating clearml-agent worker_id={worker} pid={}",
            instance.pid
        ));
        let patience = request.patience.unwrap_or_else(|| {
            if instance.worker.as_str().contains(":dgpu") {
                DYNAMIC_PATIENCE
            } else {
                PATIENCE
            }
        });
        if let Err(e) = end(&process, patience) {
            say(&format!(
                "clearml_agent: Warning: could not terminate process {}: {e}",
                instance.pid
            ));
        }
        return Ok(true);
    }
    let id = match wanted {
        Wanted::Id(id) => id.as_str(),
        Wanted::Prefix(_) => "None",
    };
    say(&format!(
        "Could not find a running clearml-agent instance with worker_name={} worker_id={id}",
        request.identity.name,
        id = printable_in_line(id)
    ));
    Ok(false)
}

/// Asks, asks again, and kills.
fn end(process: &ProcessIdentity, patience: Duration) -> io::Result<()> {
    for signal in [Signal::TERM, Signal::TERM, Signal::KILL] {
        if !process.signal(signal)? || has_ended(process, patience) {
            return Ok(());
        }
    }
    Err(io::Error::other("it does not end even after SIGKILL"))
}

fn has_ended(process: &ProcessIdentity, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while process.is_alive() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(LOOK);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Something that looks like a registered agent, and takes note of each SIGTERM. Ends at the `nth`.
    struct Fake {
        child: Child,
        notes: std::path::PathBuf,
    }

    impl Fake {
        fn start(folder: &std::path::Path, worker: &str, nth: u32) -> Self {
            let notes = folder.join(format!("{nth}.notes"));
            let script = format!(
                "n=0; trap 'n=$((n+1)); echo term >> {0}; [ $n -ge {nth} ] && exit' TERM; echo > {0}.ready; \
                 while :; do sleep 0.05; done",
                notes.display()
            );
            let child = Command::new("sh")
                .args(["-c", &script, "clearml-agent", "daemon"])
                .stdin(Stdio::null())
                .spawn()
                .unwrap();
            let ready = format!("{}.ready", notes.display());
            while !std::path::Path::new(&ready).exists() {
                sleep(Duration::from_millis(5));
            }
            let file = folder.join(format!(".clearmlagent_{}_{nth}.tmp", child.id()));
            std::fs::write(file, format!("{worker}\n{nth}")).unwrap();
            Self { child, notes }
        }

        fn terms(&self) -> usize {
            std::fs::read_to_string(&self.notes).map_or(0, |text| text.lines().count())
        }

        fn has_ended(&mut self) -> bool {
            self.child.try_wait().unwrap().is_some()
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn request(ids: &[&str], identity: Identity) -> StopRequest {
        StopRequest {
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            identity,
            patience: Some(Duration::from_millis(300)),
        }
    }

    #[test]
    fn one_that_does_not_hear_is_asked_twice_and_then_killed() {
        let folder = tempfile::tempdir().unwrap();
        let register = Register::at(folder.path());
        let mut polite = Fake::start(folder.path(), "host:a", 1);
        let mut second = Fake::start(folder.path(), "host:b", 2);
        let mut deaf = Fake::start(folder.path(), "host:c", 99);
        let all = request(&["host:a", "host:b", "host:c"], Identity::default());
        assert!(stop_daemons(&register, &all).unwrap());
        assert!(polite.has_ended() && second.has_ended() && deaf.has_ended());
        assert_eq!((polite.terms(), second.terms(), deaf.terms()), (1, 2, 2));
        assert!(!stop_daemons(&register, &all).unwrap(), "there is none left");
    }

    #[test]
    fn without_ids_the_arguments_say_which_one() {
        let folder = tempfile::tempdir().unwrap();
        let register = Register::at(folder.path());
        let mut cpu = Fake::start(folder.path(), "host:cpu:1", 1);
        let mut gpu = Fake::start(folder.path(), "host:gpu0", 2);
        let mut other = Fake::start(folder.path(), "hostess:0", 3);
        let of = |visible: Option<&str>| {
            let identity = Identity {
                name: "host".to_owned(),
                visible: visible.map(str::to_owned),
                ..Identity::default()
            };
            stop_daemons(&register, &request(&[], identity)).unwrap()
        };
        assert!(!of(Some("1")), "no such GPU");
        assert!(of(Some("none")) && cpu.has_ended() && !gpu.has_ended());
        assert!(of(None) && gpu.has_ended());
        assert!(!of(None) && !other.has_ended());
    }
}
