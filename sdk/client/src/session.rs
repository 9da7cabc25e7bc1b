//! A session: commands that count exactly once.
//!
//! Relies on the window for numbers and on exchanges to get them answered. Promises that a command keeps
//! its number however often it is sent, that a number is acknowledged only when its outcome is here or
//! was given up, and that an idle session is kept from expiring while it is held. Knows nothing of what
//! commands mean.
//!
//! Commands of one session that are in flight together are usually applied in the order in which they
//! were submitted, but a change of leadership may reorder them: await one outcome before submitting what
//! depends on it.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::WINDOW_MAX;
use quorate_proto::v1::{CloseSession, Command, KeepSession, OpenSession, submit_item};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::{Error, Rejection};
use crate::exchange::{Cause, Settled, Unsettled};
use crate::group::{Group, check_sizes};
use crate::jitter::random_bytes;
use crate::lane::item_of;
use crate::value;
use crate::window::{Turn, Window};

/// A session that has been idle for this part of its lifetime is kept alive: two attempts may fail.
const KEEP_ALIVE_PART: u32 = 3;

/// How a session behaves.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// How long the group keeps the session after the last sign of life from it. One second to one day.
    /// Default 60 s.
    pub ttl: Duration,
    /// The most commands without outcome, counted from the oldest one; from 1 to 1,024. Default 256.
    pub window: usize,
    /// How long a command may take, retries included. At least one millisecond. Default: the client's.
    pub deadline: Option<Duration>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(60), window: 256, deadline: None }
    }
}

impl SessionOptions {
    fn validate(&self) -> Result<(), Error> {
        let wrong = |reason: String| Err(Error::Config { reason });
        if !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&self.ttl) {
            return wrong(format!("ttl is {:?}; choose 1 s to 1 day", self.ttl));
        }
        if self.window == 0 || self.window as u64 > WINDOW_MAX {
            return wrong(format!("window is {}; choose 1 to {WINDOW_MAX}", self.window));
        }
        if self.deadline.is_some_and(|deadline| deadline < Duration::from_millis(1)) {
            return wrong("the session's deadline is below 1 ms".to_owned());
        }
        Ok(())
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Done {
        /// The component's answer.
        body: Bytes,
        /// The index of the log entry that answered it.
        index: u64,
    },
    /// It was applied and refused, and left nothing behind.
    Rejected(Rejection),
}

/// A session of one group. Clones share it; it is closed when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Session {
    core: Arc<Core>,
    /// Ends with the last clone, not with the last command in flight.
    _keeper: Arc<Keeper>,
}

#[derive(Debug)]
struct Core {
    group: Group,
    id: u64,
    slot: usize,
    window: Arc<Window>,
    deadline: Duration,
    /// Answers so far; tells whether the session was idle.
    answers: AtomicU64,
    /// Whether the group said that the session is gone, or it was closed.
    gone: AtomicBool,
}

/// Keeps an idle session alive until dropped.
#[derive(Debug)]
struct Keeper {
    task: AbortHandle,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    pub(crate) async fn open(group: Group, options: SessionOptions) -> Result<Self, Error> {
        options.validate()?;
        let deadline = options.deadline.unwrap_or(group.inner().config.deadline);
        let slot = group.inner().next_slot();
        // Repeating it with the same bytes opens one session, so every retry is safe.
        let client = Bytes::copy_from_slice(&random_bytes::<16>()?);
        let ttl_ms = u32::try_from(options.ttl.as_millis()).expect("a lifetime of at most a day fits");
        let started = Instant::now();
        let opened = group.exchange(slot, started + deadline, || {
            submit_item::Kind::OpenSession(OpenSession { client: client.clone(), ttl_ms })
        });
        let id = match opened.await {
            Ok(Settled::SessionOpened(id)) => id,
            Ok(other) => return Err(unexpected(&other)),
            Err(unsettled) => return Err(error_of(unsettled, 0, 0, started)),
        };
        let core = Arc::new(Core {
            group,
            id,
            slot,
            window: Window::new(options.window),
            deadline,
            answers: AtomicU64::new(0),
            gone: AtomicBool::new(false),
        });
        let task =
            tokio::spawn(keep_alive(Arc::downgrade(&core), options.ttl / KEEP_ALIVE_PART)).abort_handle();
        Ok(Self { core, _keeper: Arc::new(Keeper { task }) })
    }

    /// Its number in the group.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.core.id
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.core.group
    }

    /// Submits a command and waits for its outcome, within the session's deadline; waits for room in the
    /// window first. Dropping the future gives the command up: it may or may not be applied.
    ///
    /// # Errors
    ///
    /// [`Error::DeadlineExceeded`], [`Error::SessionExpired`], [`Error::OutcomeUnknown`],
    /// [`Error::TooLarge`], or a refusal. [`Error::maybe_applied`] tells what is known.
    pub async fn submit(&self, name: &str, body: Bytes) -> Result<Outcome, Error> {
        check_sizes(name, &body)?;
        let started = Instant::now();
        let deadline = started + self.core.deadline;
        let turn = match self.core.window.try_take() {
            Some(turn) => turn,
            None => timeout_at(deadline, self.core.window.take()).await.map_err(|_| {
                let reason = "the session's window stayed full".to_owned();
                Error::DeadlineExceeded { waited_ms: elapsed_ms(started), maybe_applied: false, reason }
            })?,
        };
        self.core.run(turn, name, body, started).await
    }

    /// Takes the next number for a command at once, and returns the future that submits it. Commands
    /// submitted this way have their numbers in the order of the calls.
    ///
    /// # Errors
    ///
    /// [`Error::WindowFull`], [`Error::TooLarge`]; the future's are those of [`Session::submit`].
    pub fn try_submit(
        &self,
        name: &str,
        body: Bytes,
    ) -> Result<impl Future<Output = Result<Outcome, Error>> + Send + use<>, Error> {
        check_sizes(name, &body)?;
        let window = &self.core.window;
        let turn = window.try_take().ok_or_else(|| Error::WindowFull { window: window.size() })?;
        let (session, name, started) = (self.clone(), name.to_owned(), Instant::now());
        Ok(async move { session.core.run(turn, &name, body, started).await })
    }

    /// Submits a command with a value that serialises to CBOR, and reads its answer from CBOR.
    ///
    /// # Errors
    ///
    /// As [`Session::submit`], [`Error::Rejected`], [`Error::Encode`] and [`Error::Decode`].
    pub async fn command<T: DeserializeOwned>(
        &self,
        name: &str,
        arguments: &(impl Serialize + ?Sized),
    ) -> Result<T, Error> {
        match self.submit(name, value::to_cbor(arguments)?).await? {
            Outcome::Done { body, .. } => value::from_cbor(&body),
            Outcome::Rejected(rejection) => Err(Error::Rejected(rejection)),
        }
    }

    /// Ends the session and waits until its group has forgotten it. Commands in flight may or may not be
    /// applied.
    ///
    /// # Errors
    ///
    /// [`Error::DeadlineExceeded`] or a refusal; the session expires by itself then.
    pub async fn close(self) -> Result<(), Error> {
        let core = &self.core;
        if core.gone.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let started = Instant::now();
        let closed = core.group.exchange(core.slot, started + core.deadline, || core.close_item());
        match closed.await {
            Ok(_) => Ok(()),
            Err(Unsettled { cause: Cause::SessionGone, .. }) => Ok(()),
            Err(unsettled) => Err(error_of(unsettled, core.id, 0, started)),
        }
    }
}

impl Core {
    async fn run(&self, turn: Turn, name: &str, body: Bytes, started: Instant) -> Result<Outcome, Error> {
        let sequence = turn.sequence();
        if self.gone.load(Ordering::Relaxed) {
            return Err(Error::SessionExpired { session: self.id, sequence, maybe_applied: false });
        }
        let settled = self.group.exchange(self.slot, started + self.deadline, || {
            submit_item::Kind::Command(Command {
                session: self.id,
                sequence,
                acknowledged_below: self.window.acknowledged_below(),
                name: name.to_owned(),
                body: body.clone(),
            })
        });
        let settled = settled.await;
        drop(turn);
        match settled {
            Ok(settled) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                match settled {
                    Settled::Done(done) => Ok(Outcome::Done { body: done.body, index: done.index }),
                    Settled::Rejected(rejection) => Ok(Outcome::Rejected(rejection)),
                    other => Err(unexpected(&other)),
                }
            }
            Err(unsettled) => {
                if matches!(unsettled.cause, Cause::SessionGone) {
                    self.gone.store(true, Ordering::Relaxed);
                }
                Err(error_of(unsettled, self.id, sequence, started))
            }
        }
    }

    fn close_item(&self) -> submit_item::Kind {
        submit_item::Kind::CloseSession(CloseSession { session: self.id })
    }
}

impl Drop for Core {
    /// Closes the session without waiting: if the message is lost, the session expires by itself.
    fn drop(&mut self) {
        if self.gone.load(Ordering::Relaxed) || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        // The answer is given up with the ticket; the item itself stays queued.
        if let Some(lane) = self.group.lane() {
            drop(lane.send(item_of(self.close_item())));
        } else if let Some(target) = self.group.route().current() {
            drop(target.node.link(self.slot).send(self.group.id(), self.close_item()));
        }
    }
}

/// Sends a sign of life whenever a session had no answer for a while.
async fn keep_alive(core: Weak<Core>, every: Duration) {
    let mut answers = 0;
    loop {
        sleep(every).await;
        let Some(core) = core.upgrade() else { return };
        if core.gone.load(Ordering::Relaxed) {
            return;
        }
        let now = core.answers.load(Ordering::Relaxed);
        if std::mem::replace(&mut answers, now) != now {
            continue;
        }
        let kept = core.group.exchange(core.slot, Instant::now() + every, || {
            submit_item::Kind::KeepSession(KeepSession { session: core.id })
        });
        match kept.await {
            Ok(_) => {}
            Err(Unsettled { cause: Cause::SessionGone, .. }) => {
                core.gone.store(true, Ordering::Relaxed);
                return;
            }
            Err(unsettled) => {
                tracing::debug!(session = core.id, reason = unsettled.reason, "no sign of life got through");
            }
        }
    }
}

pub(crate) fn error_of(unsettled: Unsettled, session: u64, sequence: u64, started: Instant) -> Error {
    let Unsettled { cause, maybe_applied, reason } = unsettled;
    match cause {
        Cause::Deadline => Error::DeadlineExceeded { waited_ms: elapsed_ms(started), maybe_applied, reason },
        Cause::SessionGone => Error::SessionExpired { session, sequence, maybe_applied },
        Cause::Forgotten => Error::OutcomeUnknown { sequence, reason },
        // A refusal speaks of its own sending only.
        Cause::Final(Error::Refused { message, .. }) if maybe_applied => {
            Error::OutcomeUnknown { sequence, reason: message }
        }
        Cause::Final(error) => error,
    }
}

fn unexpected(settled: &Settled) -> Error {
    Error::Protocol { reason: format!("the reply does not fit what was asked: {settled:?}") }
}

fn elapsed_ms(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}
