//! The documented templates for containers, on the real cluster.
//!
//! Slurm is real; what enters the containers is not: `fixtures/slurm/doubles` has a stand-in for singularity, and a
//! plugin of Slurm that stands in for Pyxis. Both really put the agent into another root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use xtask::workspace;

use crate::scene::{NOBODY, Scene, has_users};

const IMAGE: &str = "docker://lab/py:1";
const CODE: &str = "import os; print('rank', os.environ.get('RANK'), open('/etc/image').read(), os.getuid(), flush=True)\nimport time; time.sleep(1)";

/// A documented template, and a line between its parts as users write them: the image has its Python.
fn documented(name: &str) -> String {
    let path = workspace::root()
        .join("fixtures/slurm/templates")
        .join(format!("{name}.sh"));
    let text = fs::read_to_string(path).unwrap();
    let export =
        "${CLEARML_PRE_SETUP}\nexport CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL=1 HOME=$CLEARML_SLURM_JOB_DIR";
    assert!(text.contains("${CLEARML_PRE_SETUP}"));
    text.replace("${CLEARML_PRE_SETUP}", export)
}

/// An image: some files of its own, the programs of the host.
fn image(folder: &Path) {
    let root = folder.join("lab_py_1");
    for part in ["etc", "usr"] {
        fs::create_dir_all(root.join(part)).unwrap();
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{link}"), root.join(link)).unwrap();
    }
    fs::write(root.join("etc/image"), "in the image").unwrap();
    for file in ["passwd", "group", "hosts"] {
        fs::copy(Path::new("/etc").join(file), root.join("etc").join(file)).unwrap();
    }
    fs::create_dir(folder.join(".root")).unwrap();
}

impl Scene {
    /// A task with a container in a queue.
    fn contained(&self, queue: &str, image: &str, nodes: &str) -> String {
        let container = json!({"image": image, "arguments": "-e IN_CONTAINER=1 --ipc=host"});
        self.submit_with(
            queue,
            CODE,
            &[("num_nodes", nodes)],
            json!({"container": container}),
        )
    }

    fn job_log(&self, task: &str) -> String {
        let job = self.job(task);
        self.wait("the job is over", 30, || {
            (!matches!(&*self.state(&job), "RUNNING" | "COMPLETING")).then_some(())
        });
        fs::read_to_string(self.folder.path().join(format!("task-{task}-{job}.log"))).unwrap()
    }
}

#[test]
fn singularity_runs_the_agent_in_the_image() {
    const TEST: &str = "singularity_runs_the_agent_in_the_image";
    if !Path::new("/usr/bin/bwrap").exists() {
        eprintln!("SKIPPED {TEST}: bwrap is not installed (Debian: bubblewrap)");
        return;
    }
    if !has_users(TEST) {
        return;
    }
    let bare = documented("singularity").replace("srun singularity", "singularity");
    let queues = [("stepped", documented("singularity")), ("bare", bare)];
    let Some(mut scene) = Scene::new(TEST, &queues) else {
        return;
    };
    scene.modes = vec!["singularity", "singularity"];
    scene.open_to_others();
    scene.options.push(r#"user_map={"default":"nobody"}"#.to_owned());
    // Jobs get the glue's path, which begins with this folder.
    let programs = scene.folder.path().join("programs");
    fs::create_dir(&programs).unwrap();
    let double = workspace::root().join("fixtures/slurm/doubles/singularity");
    fs::copy(double, programs.join("singularity")).unwrap();
    let images = programs.join("images");
    fs::create_dir(&images).unwrap();
    image(&images);
    scene.options.push(format!("bin_dir={}", programs.display()));

    let stepped = scene.contained("stepped", IMAGE, "1");
    let bare = scene.contained("bare", "lab/py:1", "1");
    let unknown = scene.contained("bare", "docker://lab/none:1", "1");
    scene.start();
    for task in [&stepped, &bare] {
        scene.until(task, "completed", 60);
        let console = scene.api.console(task).unwrap();
        assert!(console.contains(&format!("in the image {NOBODY}")), "{console}");
        assert!(
            console.contains("--ipc means nothing to singularity"),
            "{console}"
        );
    }
    // The script of singularity's failure ends with its code, so that the job fails as well.
    let reason = scene.until(&unknown, "failed", 60);
    assert!(reason.contains("before the task started (exit 255)"), "{reason}");
    let console = scene.api.console(&unknown).unwrap();
    assert!(console.contains("[slurm] FATAL:"), "{console}");
    scene.stop_glue();
}

/// The plugin that stands in for Pyxis, made for the Slurm of this machine; or why not.
fn plugin(folder: &Path) -> Result<PathBuf, String> {
    if !Path::new("/usr/include/slurm/spank.h").exists() {
        return Err("slurm/spank.h is not installed (Debian: libslurm-dev)".to_owned());
    }
    let source = workspace::root().join("fixtures/slurm/doubles/container.c");
    let library = folder.join("container.so");
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .output()
        .map_err(|error| format!("cc can't be started: {error}"))?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(library)
}

#[test]
fn pyxis_runs_the_agent_in_the_image() {
    const TEST: &str = "pyxis_runs_the_agent_in_the_image";
    let scratch = tempfile::tempdir().unwrap();
    let library = match plugin(scratch.path()) {
        Ok(library) => library,
        Err(reason) => {
            eprintln!("SKIPPED {TEST}: {reason}");
            return;
        }
    };
    let queues = [
        ("directives", documented("pyxis-directives")),
        ("wrapper", documented("pyxis-srun")),
    ];
    let Some(mut scene) = Scene::new(TEST, &queues) else {
        return;
    };
    scene.modes = vec!["native", "srun-delegation"];
    let images = scratch.path().join("images");
    fs::create_dir(&images).unwrap();
    image(&images);
    // Without the plugin Slurm does not know the option, and says so.
    let refused = scene.contained("directives", IMAGE, "1");
    scene.start();
    let reason = scene.until(&refused, "failed", 30);
    assert!(
        reason.contains("Slurm rejected the job") && reason.contains("--container"),
        "{reason}"
    );

    let stack = format!("required {} images={}\n", library.display(), images.display());
    fs::write(scene.cluster.lab().join("etc/plugstack.conf"), stack).unwrap();
    let inside = scene.contained("directives", IMAGE, "1");
    let unknown = scene.contained("directives", "docker://lab/none:1", "1");
    let two = scene.contained("wrapper", IMAGE, "2");
    scene.until(&inside, "completed", 60);
    let console = scene.api.console(&inside).unwrap();
    assert!(console.contains("in the image 0"), "{console}");

    let reason = scene.until(&unknown, "failed", 60);
    assert!(reason.contains("before the task started (exit 1)"), "{reason}");
    let console = scene.api.console(&unknown).unwrap();
    assert!(
        console.contains("[slurm] pyxis: failed to import docker image"),
        "{console}"
    );

    let log = scene.job_log(&two);
    assert_eq!(scene.task(&two)["status"], "completed", "{log}");
    for line in ["rank 0 in the image", "rank 1 in the image"] {
        assert!(log.contains(line), "{log}");
    }
    assert_eq!(scene.jobs_of(&two), 1);
    scene.stop_glue();
}
