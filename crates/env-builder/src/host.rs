//! What the builder needs from whoever runs it: a place for console lines, phases and reports, and
//! the wish to stop. Nothing here knows about a server.

use std::time::Duration;

use clearml_support::command::CancelToken;
use serde_json::Value;

use crate::code::repo_url::without_password;

/// How important a console line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What is being done.
    Info,
    /// Something was not as asked for, and the build goes on.
    Warning,
    /// Why the build ends.
    Error,
}

/// A part of the build whose duration is of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Finding an interpreter and creating the virtual environment.
    Python,
    /// Bringing the cached clone of the repository up to date.
    Clone,
    /// Making the working copy.
    Checkout,
    /// Applying uncommitted changes.
    Patch,
    /// Installing packages.
    Packages,
    /// Writing a literal script.
    Script,
}

impl Phase {
    /// A short lower-case name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Clone => "clone",
            Self::Checkout => "checkout",
            Self::Patch => "patch",
            Self::Packages => "packages",
            Self::Script => "script",
        }
    }
}

/// Beginning or end of a [`Phase`]. A phase that fails does not finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseEvent {
    /// It begins.
    Started,
    /// It ended well after this time.
    Finished(Duration),
}

/// The builder's outside world. Calls come one after the other, in order, but not all from one thread.
pub trait Host: Send + Sync {
    /// A line for the console of the task, without line end and without secrets.
    fn line(&self, level: Level, text: &str);
    /// A phase begins or ends.
    fn phase(&self, phase: Phase, event: PhaseEvent);
    /// The installed packages in the form of `pip freeze`, to be written back to the task. Not called
    /// when there is nothing to report (no environment, or neither repository nor requirements).
    fn report_packages(&self, freeze: &[String]);
    /// What conda has installed, as `name==version`, and its own description of the environment, to be
    /// written back beside the list of [`Host::report_packages`], which comes first.
    fn report_conda(&self, packages: &[String], environment: Option<&Value>) {
        let _ = (packages, environment);
    }
    /// The commit that was checked out for a task that named none.
    fn report_commit(&self, commit: &str);
    /// Fetches a file that belongs to the task from an address that the task names, within some limit of
    /// size.
    ///
    /// # Errors
    ///
    /// Why that is not possible, for people. A host that knows no server says just that.
    fn fetch(&self, url: &str) -> Result<Vec<u8>, String> {
        Err(format!("nothing here can fetch {}", without_password(url)))
    }
    /// Cancelled when the build shall stop.
    fn cancel(&self) -> &CancelToken;
}
