//! The files of a cluster: folders, devices, configuration, ports that nobody uses.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{NODES, run};
use crate::workspace;

/// Fills the folder of a cluster: its configuration, from `fixtures/slurm/cluster`, and what it needs beside it.
pub(super) fn prepare(lab: &Path) -> Result<()> {
    folders(lab)?;
    let ports = free_ports(NODES + 3)?;
    let host = host_name()?;
    configure(lab, &ports, &host)?;
    let names: Vec<String> = (1..=NODES).map(|node| format!("c{node}")).collect();
    fs::write(
        lab.join("etc/hosts"),
        format!("127.0.0.1 localhost {host} {}\n", names.join(" ")),
    )?;
    fs::write(lab.join("database-port"), ports[2].to_string())?;
    Ok(())
}

fn folders(lab: &Path) -> Result<()> {
    for folder in [
        "etc",
        "run/munge",
        "log/munge",
        "spool",
        "state",
        "mysql",
        "dev",
        "jobs",
    ] {
        fs::create_dir_all(lab.join(folder))?;
    }
    for node in 1..=NODES {
        fs::create_dir_all(lab.join(format!("spool/c{node}")))?;
    }
    fs::set_permissions(lab.join("jobs"), fs::Permissions::from_mode(0o1777))?;
    for gpu in 0..2 {
        let path = lab.join(format!("dev/gpu{gpu}"));
        run(Command::new("mknod")
            .args(["-m", "666"])
            .arg(path)
            .args(["c", "1", "3"]))?;
    }
    Ok(())
}

/// Writes the files of Slurm. The ports are those of the controller, accounting, the database, and the nodes.
fn configure(lab: &Path, ports: &[u16], host: &str) -> Result<()> {
    let nodes: Vec<String> = (1..=NODES)
        .map(|node| {
            format!(
                "NodeName=c{node} NodeHostname=c{node} NodeAddr=127.0.0.1 Port={} CPUs=4 Boards=1 \
                 SocketsPerBoard=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=4000 Gres=gpu:2 State=UNKNOWN",
                ports[2 + node]
            )
        })
        .collect();
    // The files of Slurm 22.05 are for the first kind of control groups.
    let cgroups = Path::new("/sys/fs/cgroup/memory").is_dir() && Path::new("/sys/fs/cgroup/freezer").is_dir();
    let (proctrack, task_plugin) = if cgroups {
        ("proctrack/cgroup", "task/cgroup")
    } else {
        ("proctrack/linuxproc", "task/none")
    };
    // Clusters of one machine share its control groups, which are named after nodes and jobs: two jobs of the same
    // number would be killed together.
    let first_job = u32::from(ports[0]) * 1000;
    for file in [
        "slurm.conf",
        "slurmdbd.conf",
        "cgroup.conf",
        "gres.conf",
        "job_submit.lua",
    ] {
        let source = workspace::root().join("fixtures/slurm/cluster").join(file);
        let text = fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
        let text = text
            .replace("<LAB>", &lab.to_string_lossy())
            .replace("<HOST>", host)
            .replace("<CONTROLLER_PORT>", &ports[0].to_string())
            .replace("<ACCOUNTING_PORT>", &ports[1].to_string())
            .replace("<DATABASE_PORT>", &ports[2].to_string())
            .replace("<FIRST_JOB>", &first_job.to_string())
            .replace("<PROCTRACK>", proctrack)
            .replace("<TASK_PLUGIN>", task_plugin)
            .replace("<NODES>", &nodes.join("\n"));
        fs::write(lab.join("etc").join(file), text)?;
    }
    fs::set_permissions(lab.join("etc/slurmdbd.conf"), fs::Permissions::from_mode(0o600))?;
    fs::write(lab.join("etc/plugstack.conf"), "")?;
    Ok(())
}

fn host_name() -> Result<String> {
    let name = rustix::system::uname().nodename().to_str()?.to_owned();
    Ok(name.split('.').next().unwrap_or(&name).to_owned())
}

/// Ports that nobody uses now. They are held together, so that they differ.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<std::io::Result<Vec<_>>>()?;
    held.iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}
