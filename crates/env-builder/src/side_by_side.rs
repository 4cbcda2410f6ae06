//! Environment and code at the same time: one waits for the disk or a package manager, the other for a server.

use std::panic::resume_unwind;
use std::thread;

use crate::code::acquire::acquire;
use crate::error::BuildError;
use crate::host::{Host, Phase};
use crate::launch::Code;
use crate::packages::select::{Environment, Select};
use crate::relay::Relay;
use crate::request::BuildRequest;

/// The code, and the commit that it is.
pub(crate) type Acquired = (Code, Option<String>);

/// Makes both; the console has one after the other. If one of them fails, the other is stopped.
pub(crate) fn prepare(
    request: &BuildRequest<'_>,
    select: &Select<'_>,
) -> Result<(Environment, Acquired), BuildError> {
    let host = select.context.host;
    let of_code = Relay::keeping(host);
    let of_environment = Relay::new(host, host.cancel().child(None));
    thread::scope(|scope| {
        let code = scope.spawn(|| {
            let context = select.context.with_host(&of_code);
            let code = acquire(&context, request, select.info);
            if code.is_err() {
                of_environment.cancel().cancel();
            }
            code
        });
        let context = select.context.with_host(&of_environment);
        let select = Select {
            context: &context,
            root: select.root.clone(),
            run: select.run.clone(),
            ..*select
        };
        let environment = context.phase(Phase::Python, || select.environment());
        let code_failed = of_environment.cancel().is_cancelled();
        if environment.is_err() {
            of_code.cancel().cancel();
        }
        of_code.release();
        let code = code.join().unwrap_or_else(|panic| resume_unwind(panic));
        match (environment, code) {
            (Ok(environment), Ok(code)) => Ok((environment, code)),
            (Err(_), Err(error)) if code_failed => Err(error),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    })
}
