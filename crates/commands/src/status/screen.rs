//! The overview on a terminal, again and again.

use std::io::{self, Write};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{
    LocalModes, OptionalActions, QueueSelector, Termios, isatty, tcflush, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use super::Collector;
use super::text::{Style, render};

/// To the other screen, without cursor and without wrapping.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l";
const LEAVE: &str = "\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l";
/// For a terminal that does not say how large it is.
const USUAL_SIZE: (usize, usize) = (24, 80);

/// Shows overviews until Ctrl-C or SIGTERM. On a terminal they replace each other; elsewhere they follow each
/// other with an empty line between.
///
/// # Errors
///
/// When the output can't be written, for another reason than that nobody reads it any more.
pub async fn watch(collector: &mut Collector, every: Duration, colours: bool) -> io::Result<()> {
    let is_terminal = isatty(stdout()) && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    let mut events = Events::listen()?;
    let mut screen = is_terminal.then(Screen::enter).transpose()?;
    loop {
        let overview = collector.overview();
        let (rows, width) = size();
        let style = Style {
            colours,
            width: is_terminal.then_some(width),
        };
        let page = render(&overview, style);
        let written = if is_terminal {
            show(&frame(&page, rows, every))
        } else {
            show(&format!("{page}\n"))
        };
        match written {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
        match events.next(every).await {
            Event::Again => {}
            Event::End => return Ok(()),
            Event::Suspend => {
                drop(screen.take());
                kill_process(getpid(), Signal::STOP)?;
                // Continued.
                screen = is_terminal.then(Screen::enter).transpose()?;
            }
        }
    }
}

/// What a redraw sends: no line longer than the screen, no more lines than it has, and nothing cleared before
/// it is overwritten, so that nothing flickers.
fn frame(page: &str, rows: usize, every: Duration) -> String {
    let lines: Vec<&str> = page.lines().collect();
    let room = rows.saturating_sub(1).max(1);
    let mut out = String::from("\u{1b}[H");
    let hidden = lines.len().saturating_sub(room);
    for line in lines.iter().take(room) {
        out.push_str(line);
        out.push_str("\u{1b}[0m\u{1b}[K\r\n");
    }
    let more = match hidden {
        0 => String::new(),
        _ => format!("{hidden} more lines. "),
    };
    out.push_str(&format!(
        "{more}Every {} s; Ctrl-C ends.\u{1b}[K\u{1b}[J",
        every.as_secs_f64()
    ));
    out
}

fn show(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn size() -> (usize, usize) {
    match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
        _ => USUAL_SIZE,
    }
}

enum Event {
    Again,
    Suspend,
    End,
}

struct Events {
    interrupt: Signals,
    terminate: Signals,
    hang_up: Signals,
    resize: Signals,
    suspend: Signals,
}

impl Events {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            resize: signal(SignalKind::window_change())?,
            suspend: signal(SignalKind::from_raw(Signal::TSTP.as_raw()))?,
        })
    }

    async fn next(&mut self, every: Duration) -> Event {
        tokio::select! {
            _ = self.interrupt.recv() => Event::End,
            _ = self.terminate.recv() => Event::End,
            _ = self.hang_up.recv() => Event::End,
            _ = self.suspend.recv() => Event::Suspend,
            _ = self.resize.recv() => Event::Again,
            () = tokio::time::sleep(every) => Event::Again,
        }
    }
}

/// The other screen of the terminal; the first one comes back when this is dropped.
struct Screen {
    /// The modes of the keyboard: what is typed is not shown meanwhile.
    modes: Option<Termios>,
}

impl Screen {
    fn enter() -> io::Result<Self> {
        let modes = tcgetattr(stdin()).ok();
        if let Some(modes) = &modes {
            let mut quiet = modes.clone();
            quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON;
            tcsetattr(stdin(), OptionalActions::Now, &quiet)?;
        }
        let screen = Self { modes };
        show(ENTER)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may have gone away.
        let _gone = show(LEAVE);
        if let Some(modes) = &self.modes {
            let _gone = tcflush(stdin(), QueueSelector::IFlush);
            let _gone = tcsetattr(stdin(), OptionalActions::Now, modes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_too_long_is_cut_and_says_so() {
        let page = "a\nb\nc\nd\n";
        let cut = frame(page, 3, Duration::from_secs(2));
        assert!(
            cut.contains('b') && !cut.contains("c\u{1b}") && cut.contains("2 more lines"),
            "{cut:?}"
        );
        assert_eq!(cut.matches("\r\n").count(), 2);
        let whole = frame(page, 5, Duration::from_secs(2));
        assert!(
            !whole.contains("more lines") && whole.contains("d\u{1b}"),
            "{whole:?}"
        );
    }
}
