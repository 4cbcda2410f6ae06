//! Which processes belong to an agent, and what they cost.

use std::fs;

use crate::workbench::{Agent, AgentKind, AgentOptions, cpu_seconds, proportional_memory};

/// The agent's own processes, without those of the user's programs. Supervisors have an empty environment, so
/// they are known by their program and by the folder in their command line.
pub(super) fn of_agent(agent: &Agent, options: &AgentOptions) -> Vec<i32> {
    let home = options.home.to_string_lossy();
    let marked: Vec<i32> = agent.mark().processes().iter().map(|(pid, _)| *pid).collect();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == options.executable))
        .filter(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            marked.contains(pid) || String::from_utf8_lossy(&command).contains(&*home)
        })
        .collect()
}

/// Those of either agent: for the Python one everything that it has started, but the user's script.
pub(super) fn of_kind(kind: AgentKind, agent: &Agent, options: &AgentOptions) -> Vec<i32> {
    match kind {
        AgentKind::Ours => of_agent(agent, options),
        AgentKind::Python => {
            let processes = agent.mark().processes().into_iter();
            let own = processes.filter(|(_, command)| !command.contains("script.py"));
            own.map(|(pid, _)| pid).collect()
        }
    }
}

/// Proportional memory in bytes.
pub(super) fn memory(processes: &[i32]) -> u64 {
    processes.iter().filter_map(|pid| proportional_memory(*pid)).sum()
}

/// CPU seconds so far.
pub(super) fn cpu(processes: &[i32]) -> f64 {
    processes.iter().filter_map(|pid| cpu_seconds(*pid)).sum()
}
