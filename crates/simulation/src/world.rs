//! Everything that outlives a process: the server, the disks, the network's moods, and the notes of the audit.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use clearml_intake::pop::Intent;
use clearml_task_model::{QueueId, TaskId, WorkerId};
use clearml_task_runner::Phase;
use clearml_task_runner::console::reader::Chunk;
use clearml_task_runner::console::segment::Kind;
use clearml_task_runner::console::{Channel, Level, Tag};
use clearml_task_runner::decisions::Cursor;
use clearml_task_runner::record::{AbortIntent, Identity, RunRecord, Verdict};

use crate::Plant;
use crate::kernel::{Env, Kernel, Ms, Pid};
use crate::server::{QUEUE, Reply, Server};

/// How the dice have set up this history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// Calls that go wrong, in percent.
    pub(crate) trouble: u64,
    /// Most times that a task is put back whose run has died.
    pub(crate) requeue_limit: u32,
    /// What stopping the daemon does to running tasks.
    pub(crate) detach: bool,
    /// How long other daemons wait before they adopt.
    pub(crate) adopt_after: Ms,
    /// Whether programs may resist being killed for a while.
    pub(crate) stubborn: bool,
}

/// The claim of a shim.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    pub(crate) pid: Pid,
    pub(crate) boot: u32,
}

/// One run directory. Everything in it is on the disk.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) record: RunRecord,
    pub(crate) intent: Option<Intent>,
    pub(crate) keeper: Option<Pid>,
    pub(crate) lock: Option<Pid>,
    pub(crate) inputs: bool,
    pub(crate) launch: bool,
    pub(crate) claim: Option<Claim>,
    pub(crate) program: Option<Pid>,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) abort: Option<AbortIntent>,
    pub(crate) cursor: Cursor,
    pub(crate) agent: Vec<Chunk>,
    pub(crate) task: Vec<Chunk>,
}

impl Run {
    pub(crate) fn chunks(&self, channel: Channel) -> &Vec<Chunk> {
        match channel {
            Channel::Agent => &self.agent,
            Channel::Task => &self.task,
        }
    }

    /// What a reader sees that begins at this position.
    pub(crate) fn window(&self, channel: Channel, position: u64) -> VecDeque<Chunk> {
        let chunks = self.chunks(channel);
        let first = chunks.partition_point(|chunk| chunk.end() <= position);
        let mut window: VecDeque<Chunk> = chunks[first..].iter().cloned().collect();
        if let Some(chunk) = window.front_mut()
            && chunk.offset < position
        {
            let skip = usize::try_from(position - chunk.offset).unwrap_or(0);
            chunk.payload.drain(..skip);
            chunk.offset = position;
        }
        window
    }

    fn append(chunks: &mut Vec<Chunk>, now: Ms, kind: Kind, tag: u8, text: &str) {
        let offset = chunks.last().map_or(0, Chunk::end);
        chunks.push(Chunk {
            offset,
            ms: i64::try_from(now).unwrap_or(0),
            kind,
            tag,
            level: if kind == Kind::Output {
                Level::Debug
            } else {
                Level::Info
            },
            payload: text.as_bytes().to_vec(),
        });
    }

    /// Output of the program.
    pub(crate) fn output(&mut self, now: Ms, text: &str) {
        Self::append(&mut self.task, now, Kind::Output, 0, text);
    }

    /// A line of the agent, which may have to be the only one of its kind.
    pub(crate) fn line(&mut self, now: Ms, tag: Option<Tag>, text: &str) {
        let tag = tag.map_or(0, |tag| tag as u8);
        if tag == 0 || self.agent.iter().all(|chunk| chunk.tag != tag) {
            let text = format!("{} {text}\n", self.record.run_id);
            Self::append(&mut self.agent, now, Kind::Line, tag, &text);
        }
    }
}

/// One machine.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) runs: BTreeMap<String, Run>,
    pub(crate) boot: u32,
    pub(crate) away_until: Ms,
}

/// One execution of a user's program, for the audit.
#[derive(Debug)]
pub(crate) struct Execution {
    pub(crate) run: String,
    pub(crate) task: TaskId,
    pub(crate) life: u32,
    pub(crate) pid: Pid,
    /// How it has ended, as it would say itself.
    pub(crate) code: Option<i32>,
    /// When.
    pub(crate) ended: Option<Ms>,
    /// When it got the first SIGKILL. One that hangs in the kernel is still there after that.
    pub(crate) killed: Option<Ms>,
}

/// See the module.
pub(crate) struct World {
    pub(crate) kernel: Kernel,
    pub(crate) setup: Setup,
    pub(crate) plant: Plant,
    pub(crate) server: RefCell<Server>,
    pub(crate) hosts: RefCell<Vec<Host>>,
    pub(crate) executions: RefCell<Vec<Execution>>,
    /// How often the runs of a life have put the task back.
    pub(crate) put_back: RefCell<BTreeMap<(TaskId, u32), u32>>,
    /// Nothing goes wrong any more, so that everything can settle.
    pub(crate) peace: Cell<bool>,
    pub(crate) next_run: Cell<u32>,
    /// Workers and their hosts.
    pub(crate) workers: Vec<(WorkerId, usize)>,
}

pub(crate) type Shared = Rc<World>;

/// What happened to one message.
enum Fate {
    Well,
    Refused,
    Lost,
    AnswerLost,
}

/// A call without an answer that helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// The server was never reached, or was not able to do it.
    #[error("not applied")]
    NotApplied,
    /// Nobody knows.
    #[error("no answer")]
    Unclear,
}

impl World {
    /// Reads or changes a run on the disk of a host; `None` when it is not there.
    pub(crate) fn run<T>(&self, host: usize, run: &str, act: impl FnOnce(&mut Run) -> T) -> Option<T> {
        self.hosts.borrow_mut().get_mut(host)?.runs.get_mut(run).map(act)
    }

    pub(crate) fn broken(&self, text: String) {
        self.kernel.log(|| format!("BROKEN: {text}"));
        self.server.borrow_mut().broken.push(text);
    }

    pub(crate) fn boot(&self, host: usize) -> u32 {
        self.hosts.borrow().get(host).map_or(0, |host| host.boot)
    }

    pub(crate) fn create_run(&self, host: usize, worker: &WorkerId, task: &TaskId, keeper: Pid) -> String {
        let number = self.next_run.get() + 1;
        self.next_run.set(number);
        let run_id = format!("r{number:03}");
        let boot = self.boot(host);
        let record = RunRecord {
            schema: 1,
            run_id: run_id.clone(),
            boot_id: boot.to_string(),
            host: host.to_string(),
            agent_version: String::new(),
            identity: Identity {
                task: task.clone(),
                queue: Some(QueueId::from(QUEUE)),
                worker: worker.clone(),
                project: None,
            },
            phase: Phase::Popping,
            created_ms: i64::from(number),
            runner: None,
            failure: None,
            outcome: None,
        };
        let run = Run {
            record,
            intent: None,
            keeper: Some(keeper),
            lock: None,
            inputs: false,
            launch: false,
            claim: None,
            program: None,
            verdict: None,
            abort: None,
            cursor: Cursor::default(),
            agent: Vec::new(),
            task: Vec::new(),
        };
        if let Some(host) = self.hosts.borrow_mut().get_mut(host) {
            host.runs.insert(run_id.clone(), run);
        }
        run_id
    }

    fn is_away(&self, host: usize) -> bool {
        self.hosts
            .borrow()
            .get(host)
            .is_some_and(|host| self.kernel.now() < host.away_until)
    }

    fn fate(&self, host: usize) -> Fate {
        if self.is_away(host) {
            return match self.kernel.below(2) {
                0 => Fate::Refused,
                _ => Fate::Lost,
            };
        }
        let trouble = if self.peace.get() { 0 } else { self.setup.trouble };
        match self.kernel.below(300) {
            n if n >= trouble * 3 => Fate::Well,
            n => match n % 3 {
                0 => Fate::Refused,
                1 => Fate::Lost,
                _ => Fate::AnswerLost,
            },
        }
    }

    /// How long a message is under way: mostly short, so that messages overtake each other now and then.
    fn transit(&self) -> Ms {
        if !self.peace.get() && self.kernel.percent(5) {
            self.kernel.below(800)
        } else {
            self.kernel.below(20)
        }
    }

    /// Asks the server something.
    pub(crate) async fn ask<T>(
        &self,
        env: &Env,
        host: usize,
        read: impl FnOnce(&Server) -> T,
    ) -> Result<T, Trouble> {
        env.step().await;
        let fate = self.fate(host);
        env.sleep(self.transit()).await;
        match fate {
            Fate::Well => {
                let value = read(&self.server.borrow());
                env.sleep(self.transit()).await;
                Ok(value)
            }
            Fate::Refused => Err(Trouble::NotApplied),
            Fate::Lost | Fate::AnswerLost => {
                env.sleep(1_000).await;
                Err(Trouble::Unclear)
            }
        }
    }

    /// Tells the server something. The message is on its way whether or not its sender lives to hear the answer.
    /// `late`: how long after its sender has given up it may still arrive.
    pub(crate) async fn tell<T: 'static>(
        self: &Rc<Self>,
        env: &Env,
        host: usize,
        late: Ms,
        apply: impl FnOnce(&mut Server) -> T + 'static,
    ) -> Result<T, Trouble> {
        env.step().await;
        let fate = self.fate(host);
        let (there, back) = (self.transit(), self.transit());
        let lost = matches!(fate, Fate::Lost);
        if matches!(fate, Fate::Refused) {
            env.sleep(there + back).await;
            return Err(Trouble::NotApplied);
        }
        let arrives = !lost || (!self.is_away(host) && late > 0 && self.kernel.percent(50));
        let there = if lost {
            there + 1_000 + self.kernel.below(late)
        } else {
            there
        };
        let answer = Rc::new(RefCell::new(None));
        if arrives {
            let (world, slot, caller) = (Rc::clone(self), Rc::clone(&answer), env.pid);
            self.kernel.spawn("message", None, |message| async move {
                message.sleep(there).await;
                let value = apply(&mut world.server.borrow_mut());
                *slot.borrow_mut() = Some(value);
                message.sleep(back).await;
                message.kernel.wake(caller);
            });
        }
        match fate {
            Fate::Well => {
                env.sleep(there + back).await;
                env.until(|| answer.borrow().is_some()).await;
                env.step().await;
                answer.take().ok_or(Trouble::Unclear)
            }
            _ => {
                env.sleep(1_000).await;
                Err(Trouble::Unclear)
            }
        }
    }

    /// As [`Self::tell`], for a call that does no harm when it is done twice: now and then it is.
    pub(crate) async fn tell_often(
        self: &Rc<Self>,
        env: &Env,
        host: usize,
        apply: impl Fn(&mut Server) -> Reply + 'static,
    ) -> Result<Reply, Trouble> {
        let twice = !self.peace.get() && self.kernel.percent(3);
        self.tell(env, host, 0, move |server| {
            let reply = apply(server);
            if twice {
                apply(server);
            }
            reply
        })
        .await
    }
}
