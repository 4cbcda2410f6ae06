//! The smallest program that git can ask for logins on behalf of the builder: it is named in
//! `GitSettings::ask_pass_program`, and does nothing else. Started by hand, it says so.

use std::process::ExitCode;

fn main() -> ExitCode {
    clearml_env_builder::askpass::intercept().unwrap_or_else(|| {
        println!("git starts this program when a server wants a login");
        ExitCode::SUCCESS
    })
}
