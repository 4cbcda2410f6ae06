//! Where code comes from, and what its changes look like.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use xtask::workbench::TaskSpec;

use crate::case::Case;
use crate::fixtures::{commit, git, has};
use crate::place::{PASS, Place, diff_of, local};
use crate::sshd::{self, SSHD};

/// The configuration with the login of the closed server.
fn login() -> String {
    format!("agent {{ git_user: robot, git_pass: {} }}", json!(PASS))
}

/// The cases, and the server for ssh, which has to live as long as they run.
pub(crate) fn cases(place: &Place, test: &str) -> (Vec<Case>, Option<sshd::Server>) {
    let mut cases = vec![by_login(place), foreign_submodule(place), detached(place)];
    let server = (has(SSHD, test) && has("ssh", test))
        .then(|| sshd::start(&place.path("ssh"), test))
        .flatten();
    cases.extend(server.as_ref().map(|server| by_ssh(place, server)));
    if has("git-lfs", test) {
        cases.push(large_file(place));
    }
    if has("hg", test) {
        cases.push(mercurial(place));
    }
    cases.push(large_diff(place));
    cases.push(binary_diff(place));
    cases.push(rename_diff(place));
    cases.push(line_ends(place));
    cases.push(odd_names(place));
    (cases, server)
}

fn by_login(place: &Place) -> Case {
    let (_, commit) = place.repository("closed.git", &[("main.py", "print('out: by login')\n")]);
    let spec = TaskSpec::repository(&place.closed.url("closed.git"), &commit, "main.py");
    Case::new("git over http with a login", spec, &["by login"]).config(login())
}

fn by_ssh(place: &Place, server: &sshd::Server) -> Case {
    let (root, commit) = place.repository("by-ssh.git", &[("main.py", "print('out: by ssh')\n")]);
    let url = format!(
        "ssh://{}@127.0.0.1:{}{}",
        sshd::user(),
        server.port,
        root.display()
    );
    let spec = TaskSpec::repository(&url, &commit, "main.py");
    Case::new("git over ssh", spec, &["by ssh"]).variable("GIT_SSH_COMMAND", &*server.command)
}

/// The login is for the host of the repository; its submodule lies on another server.
fn foreign_submodule(place: &Place) -> Case {
    let (_, module) = place.repository("module.git", &[("x.txt", "of the module")]);
    let (root, _) = place.repository(
        "with-module.git",
        &[("main.py", "print('out:', open('sub dir/x.txt').read())\n")],
    );
    let url = place.open.url("module.git");
    let text = format!("[submodule \"sub\"]\n\tpath = sub dir\n\turl = {url}\n");
    fs::write(root.join(".gitmodules"), text).unwrap();
    fs::create_dir(root.join("sub dir")).unwrap();
    let entry = format!("160000,{module},sub dir");
    git(&root, &["update-index", "--add", "--cacheinfo", &entry]);
    let commit = commit(&root, &[]);
    let spec = TaskSpec::repository(&place.closed.url("with-module.git"), &commit, "main.py");
    Case::new("a submodule on a second host", spec, &["of the module"]).config(login())
}

fn detached(place: &Place) -> Case {
    let (root, _) = place.repository("detached.git", &[("main.py", "print('out: on main')\n")]);
    git(&root, &["checkout", "-q", "--detach"]);
    let commit = commit(&root, &[("main.py", "print('out: on no branch')\n")]);
    git(&root, &["checkout", "-q", "main"]);
    let spec = TaskSpec::repository(&place.closed.url("detached.git"), &commit, "main.py");
    Case::new("a commit on no branch", spec, &["on no branch"]).config(login())
}

fn large_file(place: &Place) -> Case {
    let main = "print('out:', len(open('data.bin').read()))\n";
    let (root, _) = place.repository("large.git", &[("main.py", main)]);
    git(&root, &["lfs", "install", "--local"]);
    git(&root, &["lfs", "track", "*.bin"]);
    let files = [("data.bin", "x".repeat(5000))];
    git(&root, &["add", ".gitattributes"]);
    let commit = commit(
        &root,
        &files.each_ref().map(|(name, text)| (*name, text.as_str())),
    );
    Case::new("a large file", local(&root, &commit), &["5000"])
}

fn mercurial(place: &Place) -> Case {
    let root = place.path("hg project");
    fs::create_dir(&root).unwrap();
    let hg = |args: &[&str]| {
        let mut command = Command::new("hg");
        command.current_dir(&root).env("HGRCPATH", "");
        let output = command
            .args(["--config", "ui.username=Someone"])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "hg {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    hg(&["init"]);
    fs::write(root.join("main.py"), "print('out: by hg')\n").unwrap();
    hg(&["commit", "--addremove", "-m", "Start"]);
    let commit = hg(&["--debug", "identify", "--id"]);
    let spec = TaskSpec::repository(&format!("hg+{}", root.display()), &commit, "main.py").with("branch", "");
    Case::new("Mercurial", spec, &["by hg"])
}

fn large_diff(place: &Place) -> Case {
    let main = "print('out:', len(open('data.txt').readlines()))\n";
    let (root, commit) = place.repository("large-diff.git", &[("main.py", main), ("data.txt", "0\n")]);
    let lines: String = (0..40_000)
        .map(|number| format!("line number {number}\n"))
        .collect();
    let diff = diff_of(&root, &[], || fs::write(root.join("data.txt"), lines).unwrap());
    assert!(diff.len() > 600_000, "{}", diff.len());
    Case::new(
        "changes of 600 kB",
        local(&root, &commit).with("diff", diff),
        &["40000"],
    )
}

fn binary_diff(place: &Place) -> Case {
    let main = "print('out:', open('i.png', 'rb').read()[1])\n";
    let root = place.empty_repository("binary-diff.git");
    fs::write(root.join("i.png"), [0, 1, 2, 255]).unwrap();
    git(&root, &["add", "i.png"]);
    let commit = commit(&root, &[("main.py", main)]);
    let diff = diff_of(&root, &["--binary"], || {
        fs::write(root.join("i.png"), [0, 9, 9, 255]).unwrap();
    });
    assert!(diff.contains("GIT binary patch"), "{diff}");
    Case::new(
        "a binary change",
        local(&root, &commit).with("diff", diff),
        &["9"],
    )
}

fn rename_diff(place: &Place) -> Case {
    let main = "import os\nprint('out:', sorted(n for n in os.listdir() if n.endswith('.txt')))\n\
                print('out:', open('new name.txt').readline().strip())\n";
    let text = "one\ntwo\nthree\nfour\nfive\n";
    let (root, commit) = place.repository("rename-diff.git", &[("main.py", main), ("old.txt", text)]);
    let diff = diff_of(&root, &[], || {
        git(&root, &["mv", "old.txt", "new name.txt"]);
        fs::write(root.join("new name.txt"), text.replace("one", "ONE")).unwrap();
    });
    assert!(diff.contains("rename to"), "{diff}");
    let spec = local(&root, &commit).with("diff", diff);
    Case::new("a renamed file", spec, &["['new name.txt']", "ONE"])
}

fn line_ends(place: &Place) -> Case {
    let main = "print('out:', repr(open('crlf.txt', newline='').read()))\r\n";
    let files = [("main.py", main), ("crlf.txt", "a\r\nb\r\nc\r\n")];
    let (root, commit) = place.repository("crlf.git", &files);
    let diff = diff_of(&root, &[], || write(&root, "crlf.txt", "a\r\nB\r\nc\r\n"));
    let spec = local(&root, &commit).with("diff", diff);
    Case::new("line ends of Windows", spec, &[r"'a\r\nB\r\nc\r\n'"])
}

fn odd_names(place: &Place) -> Case {
    let main = "import os, sys\nprint('out:', open('../daten/größe \"x\".txt').read().strip(), sys.argv[1])\n\
                print('out:', os.path.basename(os.getcwd()))\n";
    let files = [
        ("ein ordner/süß los.py", main),
        ("daten/größe \"x\".txt", "alt\n"),
    ];
    let (root, commit) = place.repository("mit raum ü.git", &files);
    let diff = diff_of(&root, &[], || write(&root, "daten/größe \"x\".txt", "neu\n"));
    let spec = local(&root, &commit)
        .with("diff", diff)
        .with("entry_point", "'süß los.py' '日本 語'")
        .with("working_dir", "ein ordner");
    Case::new(
        "names with blanks and other letters",
        spec,
        &["neu 日本 語", "ein ordner"],
    )
}

fn write(root: &Path, name: &str, text: &str) {
    fs::write(root.join(name), text).unwrap();
}
