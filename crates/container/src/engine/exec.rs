//! A further process in a container that runs.

use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures::StreamExt as _;

use super::{Engine, EngineError};

/// A longer line goes on in the next one.
const MAX_LINE: usize = 64 << 10;

impl Engine {
    /// Runs a command in a container that runs, as the container's user, and tells each line that it prints. Returns
    /// its exit code. Who stops waiting does not stop the command: it ends with the container at the latest.
    ///
    /// # Errors
    ///
    /// When the container does not run, or the engine goes away meanwhile.
    pub async fn exec(
        &self,
        id: &str,
        argv: &[&str],
        say: &mut (dyn FnMut(&str) + Send),
    ) -> Result<i64, EngineError> {
        const DOING: &str = "running a command in the container";
        let failed = |e| self.error(DOING, e);
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(argv.iter().map(|&word| word.to_owned()).collect()),
            ..ExecConfig::default()
        };
        let made = self.docker.create_exec(id, config).await.map_err(failed)?;
        let started = self.docker.start_exec(&made.id, None::<StartExecOptions>).await;
        if let StartExecResults::Attached { mut output, .. } = started.map_err(failed)? {
            let mut lines = Lines::default();
            while let Some(part) = output.next().await {
                lines.take(&part.map_err(failed)?.into_bytes(), say);
            }
            lines.end(say);
        }
        let ended = self.docker.inspect_exec(&made.id).await.map_err(failed)?;
        Ok(ended.exit_code.unwrap_or(-1))
    }
}

/// What has come of a line that has not ended.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn take(&mut self, bytes: &[u8], say: &mut dyn FnMut(&str)) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.0.extend_from_slice(part);
            if part.ends_with(b"\n") || self.0.len() >= MAX_LINE {
                self.end(say);
            }
        }
    }

    fn end(&mut self, say: &mut dyn FnMut(&str)) {
        let line = std::mem::take(&mut self.0);
        if !line.is_empty() {
            say(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_whatever_comes_together() {
        let mut said = Vec::new();
        let mut say = |line: &str| said.push(line.to_owned());
        let mut lines = Lines::default();
        for part in ["a", "b\nc\r\n\nd", "", "e\u{e9}"] {
            lines.take(part.as_bytes(), &mut say);
        }
        lines.take(&vec![b'x'; MAX_LINE], &mut say);
        lines.end(&mut say);
        assert_eq!(said[..3], ["ab", "c", ""]);
        assert!(
            said[3].starts_with("de\u{e9}x") && said.len() == 4,
            "{}",
            said.len()
        );
    }
}
