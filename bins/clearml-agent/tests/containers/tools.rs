//! What an image lacks: it is installed, or named before anything runs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::json;
use xtask::workbench::TaskSpec;

use crate::place::{Place, docker};

/// A package manager that keeps what it installs under another name, and notes how it was called.
const APT: &str = "#!/bin/sh\necho \"$DEBIAN_FRONTEND $*\" >> /called\n\
    case \"$*\" in *python3-pip*) for f in /hidden/*; do mv $f /usr/bin/; done;; esac\n\
    case \"$*\" in *no-such-package*) echo 'E: Unable to locate package' >&2; exit 100;; esac\n";

#[test]
fn what_an_image_lacks_is_installed() {
    let Some(place) = Place::or_skip("what_an_image_lacks_is_installed") else {
        return;
    };
    let hide = format!(
        "mkdir /hidden && mv /usr/bin/python3* /usr/bin/git /hidden/ && rm -f /usr/bin/apt-get && \
         cat > /usr/bin/apt-get <<'END'\n{APT}END\nchmod 755 /usr/bin/apt-get"
    );
    let image = Made::by_container(&place.image, "lacking", &hide);
    let mut agent = place.daemon(&place.options());
    let (url, commit) = place
        .scene
        .repository("repository", &[("main.py", "print(open('/called').read())\n")]);
    let repository = place.scene.folder.path().join("repository");
    let arguments = format!(
        "--network none -v {0}:{0}:ro -e TRAINS_APT_INSTALL=libfoo1 -e GIT_CONFIG_COUNT=1 \
         -e GIT_CONFIG_KEY_0=safe.directory -e GIT_CONFIG_VALUE_0=*",
        repository.display()
    );
    let spec = TaskSpec::repository(&url, &commit, "main.py");
    // With a script, the agent looks twice.
    let container = json!({"image": image.0, "arguments": arguments, "setup_shell_script": "true"});
    let ended = place.ended(&place.submit_spec("lacking", &spec, container));
    ended.assert_status("completed");
    for called in [
        "noninteractive update",
        "noninteractive install -y -- libfoo1 python3-pip git",
    ] {
        assert!(
            ended.console.contains(called),
            "no {called:?} in {}",
            ended.console
        );
    }

    // What the task asks for itself and can't have is no reason to fail.
    let setup = "export CLEARML_APT_INSTALL=no-such-package\n";
    let asked = json!({"image": place.image, "arguments": "--network none", "setup_shell_script": setup});
    let ended = place.ended(&place.submit("asked for", "print('out: it ran')", asked));
    ended.assert_status("completed");
    assert_eq!(ended.output(), ["out: it ran"]);
    let missing = "not all of no-such-package is installed";
    assert!(ended.console.contains(missing), "{}", ended.console);
    agent.stop().unwrap();
}

#[test]
fn nothing_is_installed_where_nothing_is_missing_and_dnf_does_it_where_there_is_no_apt() {
    let Some(place) =
        Place::or_skip("nothing_is_installed_where_nothing_is_missing_and_dnf_does_it_where_there_is_no_apt")
    else {
        return;
    };
    let manager = |name: &str| format!("cat > /usr/bin/{name} <<'END'\n{APT}END\nchmod 755 /usr/bin/{name}");
    let whole = Made::by_container(
        &place.image,
        "whole",
        &format!("rm -f /usr/bin/apt-get && {}", manager("apt-get")),
    );
    let hide = "mkdir /hidden && mv /usr/bin/python3* /hidden/ && rm -f /usr/bin/apt-get";
    let other = Made::by_container(&place.image, "dnf", &format!("{hide} && {}", manager("dnf")));
    let mut agent = place.daemon(&place.options());
    let code = "import os\ncalled = '/called'\n\
                print('out:', open(called).read().strip() if os.path.exists(called) else 'not called')\n";
    for (image, called) in [
        (&whole.0, "out: not called"),
        (&other.0, "out: noninteractive install -y -- python3-pip"),
    ] {
        let container = json!({"image": image, "arguments": "--network none", "setup_shell_script": "true"});
        let ended = place.ended(&place.submit("a package manager", code, container));
        ended.assert_status("completed");
        assert_eq!(ended.output(), [called]);
    }
    agent.stop().unwrap();
}

#[test]
fn images_in_which_the_agent_can_not_run_are_refused_before_they_run() {
    let Some(place) = Place::or_skip("images_in_which_the_agent_can_not_run_are_refused_before_they_run")
    else {
        return;
    };
    let old = Made::of_files("old-glibc", |root| {
        let loader = root.join("lib64/ld-linux-x86-64.so.2");
        fs::write(root.join("lib64/ld-2.12.so"), "").unwrap();
        symlink("ld-2.12.so", loader).unwrap();
    });
    let none = Made::of_files("no-glibc", |_| {});
    let mut agent = place.daemon(&place.options());
    for (image, reason) in [
        (&old.0, "has version 2.12 of the GNU C library"),
        (&none.0, "has no GNU C library"),
    ] {
        let task = place.submit("refused", "print('out: it ran')", json!({"image": image}));
        let ended = place.ended(&task);
        ended.assert_failed_in("environment", reason);
        assert!(!ended.console.contains("Starting container"), "{}", ended.console);
        Place::is_removed(&task);
    }
    agent.stop().unwrap();
}

/// An image that is removed in the end.
struct Made(String);

impl Made {
    fn name(what: &str) -> String {
        format!("clearml-test-{what}:{}", std::process::id())
    }

    fn by_container(base: &str, what: &str, script: &str) -> Self {
        let (name, container) = (
            Self::name(what),
            format!("clearml-test-{}-{what}", std::process::id()),
        );
        docker(&[
            "run",
            "--name",
            &container,
            "--network",
            "none",
            base,
            "/bin/sh",
            "-c",
            script,
        ])
        .unwrap();
        docker(&["commit", &container, &name]).unwrap();
        docker(&["rm", "-f", &container]).unwrap();
        Self(name)
    }

    fn of_files(what: &str, fill: impl Fn(&Path)) -> Self {
        let (name, folder) = (Self::name(what), tempfile::tempdir().unwrap());
        for part in ["lib64", "bin"] {
            fs::create_dir(folder.path().join(part)).unwrap();
        }
        let shell = folder.path().join("bin/sh");
        fs::write(&shell, "").unwrap();
        fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
        fill(folder.path());
        let script = "tar c -C \"$0\" . | docker import - \"$1\"";
        let made = Command::new("sh")
            .args(["-c", script])
            .arg(folder.path())
            .arg(&name)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Self(name)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        docker(&["rmi", "-f", &self.0]);
    }
}
