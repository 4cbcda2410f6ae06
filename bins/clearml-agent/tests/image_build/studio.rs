//! A task with private code and private packages, an agent that may fetch them, and the images that it makes.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use xtask::workbench::{AgentOptions, TaskSpec};

use crate::fixtures::make_wheel;
use crate::place::{Place, docker};
use crate::scene::finish;
use crate::web::{Site, Web};

/// Prints what the task sees: the environment, and no login.
const CODE: &str = "import alpha, sys\nprint('out: private', alpha.VERSION, sys.flags.optimize)\n";

/// The packages of a folder, as pip wants an index.
const INDEX: &str = r#"
import os, sys
folder, path = sys.argv[1], os.environ['PATH_INFO'].strip('/').split('/')
def reply(kind, body):
    sys.stdout.buffer.write(b'Content-Type: ' + kind + b'\r\n\r\n' + body)
if path[0] == 'files':
    reply(b'application/zip', open(os.path.join(folder, path[-1]), 'rb').read())
else:
    links = [f'<a href="/files/{f}">{f}</a>' for f in os.listdir(folder) if f.split('-')[0] == path[-1]]
    reply(b'text/html', '\n'.join(links).encode())
"#;

pub(crate) struct Studio {
    pub(crate) place: Place,
    pub(crate) git: Web,
    pub(crate) index: Web,
    /// Places and their secrets.
    pub(crate) canaries: Vec<(&'static str, String)>,
    repository: String,
    commit: String,
    images: std::cell::RefCell<Vec<String>>,
}

impl Studio {
    pub(crate) fn or_skip(test: &str) -> Option<Self> {
        let place = Place::or_skip(test)?;
        let folder = place.scene.folder.path().to_owned();
        let mut canaries = Vec::new();
        let mut canary = |place: &'static str| {
            let secret = format!("CaNaRy{}", clearml_support::id::hex32());
            canaries.push((place, secret.clone()));
            secret
        };
        let (_, commit) = place.scene.bare_repository("project", &[("src/main.py", CODE)]);
        let git = Web::start(Site::git(&folder).login("robot", &canary("agent.git_pass")));
        let wheels = folder.join("wheels");
        make_wheel(&wheels, "alpha", "1.0");
        make_wheel(&wheels, "beta", "2.0");
        let cgi = ["python3", "-c", INDEX, wheels.to_str().unwrap()];
        let login = canary("index");
        let site = Site {
            cgi: cgi.map(str::to_owned).to_vec(),
            env: Vec::new(),
            ..Site::git(&folder)
        };
        let index = Web::start(site.login("buyer", &login));
        for place in [
            "variable",
            "label",
            "s3",
            "extra git",
            "environment",
            "ssh key",
            "git-credentials",
        ] {
            canary(place);
        }
        let config = fs::read_to_string(place.scene.server.config()).unwrap();
        let key = config.split("secret_key").nth(1).unwrap();
        let key = key.split('"').find(|part| part.len() > 10).unwrap();
        canaries.push(("api secret key", key.to_owned()));
        let repository = git.url("project.git");
        Some(Self {
            place,
            git,
            index,
            canaries,
            repository,
            commit,
            images: Default::default(),
        })
    }

    pub(crate) fn secret(&self, place: &str) -> &str {
        let found = self.canaries.iter().find(|(name, _)| *name == place);
        &found.unwrap().1
    }

    /// An address of the package index.
    fn with_login(&self, path: &str) -> String {
        let login = format!("http://buyer:{}@", self.secret("index"));
        self.index.url(path).replace("http://", &login)
    }

    /// An agent that has all logins, each at its place.
    pub(crate) fn options(&self) -> AgentOptions {
        let options = self.place.options();
        let index = self.with_login("simple");
        let arguments = json!([
            "--network=host",
            "-e",
            format!("PIP_INDEX_URL={index}"),
            format!("--env=AWS_SECRET_ACCESS_KEY={}", self.secret("variable")),
            "--label",
            format!("of={}", self.secret("label")),
        ]);
        let text = fs::read_to_string(&options.config).unwrap();
        let config = self.place.scene.folder.path().join("more.conf");
        fs::write(
            &config,
            format!(
                "{text}\nagent.extra_docker_arguments: {arguments}\nagent.git_user: robot\nagent.git_pass: \"{}\"\n\
                 agent.package_manager.extra_index_url: [\"{index}\"]\nsdk.aws.s3.secret: \"{}\"\n\
                 environment.BUILD_TOKEN: \"{}\"\nagent.apply_environment: true\n\
                 agent.git.extra_credentials: [{{user: other, pass: \"{}\", host: \"git.example.com\"}}]\n",
                self.secret("agent.git_pass"),
                self.secret("s3"),
                self.secret("environment"),
                self.secret("extra git"),
            ),
        )
        .unwrap();
        fs::create_dir_all(options.home.join(".ssh")).unwrap();
        let key = format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
            self.secret("ssh key")
        );
        fs::write(options.home.join(".ssh/id_ed25519"), key).unwrap();
        let login = format!("https://me:{}@git.example.com\n", self.secret("git-credentials"));
        fs::write(options.home.join(".git-credentials"), login).unwrap();
        AgentOptions { config, ..options }
            .variable("SSH_AUTH_SOCK", "")
            .variable(
                "CLEARML_AGENT_EXTRA_DOCKER_LABELS",
                format!("more={}", self.secret("label")),
            )
    }

    /// A task with the private code, and this container.
    pub(crate) fn task(&self, name: &str, container: Value) -> String {
        let spec = TaskSpec::repository(&self.repository, &self.commit, "main.py")
            .with("working_dir", "src")
            .requirements(&format!(
                "alpha==1.0\nbeta @ {}",
                self.with_login("files/beta-2.0-py3-none-any.whl")
            ));
        let task = self.place.scene.api.create_task(name, &spec).unwrap();
        let body = json!({"task": task, "force": true, "container": container});
        self.place.scene.api.call("tasks.edit", body).unwrap();
        task
    }

    /// A name for an image, which is removed in the end.
    pub(crate) fn image(&self, name: &str) -> String {
        let name = format!("clearml-test-build-{name}:{}", &clearml_support::id::hex32()[..8]);
        self.images.borrow_mut().push(name.clone());
        name
    }

    pub(crate) fn remove_later(&self, image: &str) {
        self.images.borrow_mut().push(image.to_owned());
    }

    /// Builds, which has to go well; the output.
    #[track_caller]
    pub(crate) fn build(&self, arguments: &[&str]) -> String {
        let arguments = [&["build"], arguments].concat();
        let (code, output, errors) = finish(self.options().command(&arguments));
        assert_eq!(code, 0, "{arguments:?}: {output}{errors}");
        let shown = output.clone() + &errors;
        // A label is shown as the person has written it.
        for (place, secret) in self.canaries.iter().filter(|(place, _)| *place != "label") {
            assert!(!shown.contains(secret), "the secret of {place} in {shown}");
        }
        output
    }

    /// Runs an image, with credentials of the server.
    pub(crate) fn run(&self, image: &str, more: &[&str]) -> (i32, String, String) {
        let text = fs::read_to_string(self.place.scene.server.config()).unwrap();
        let value = |name: &str| {
            let after = text.split(name).nth(1).unwrap();
            let quoted = after.split('"').find(|part| part.len() > 10);
            quoted.unwrap().to_owned()
        };
        let mut command = Command::new("docker");
        command
            .args(["run", "--rm", "--network", "host"])
            .args(["-e", "CLEARML_API_ACCESS_KEY", "-e", "CLEARML_API_SECRET_KEY"])
            .env("CLEARML_API_ACCESS_KEY", value("access_key"))
            .env("CLEARML_API_SECRET_KEY", value("secret_key"))
            .arg(image)
            .args(more);
        finish(command)
    }

    /// Nothing that belongs to a build is left.
    #[track_caller]
    pub(crate) fn nothing_is_left(&self) {
        let state = self.place.options().home.join(".clearml");
        let folders = Command::new("find")
            .arg(&state)
            .args(["-path", "*/images/runs/*"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&folders.stdout), "");
    }

    /// Looks for every secret, plainly and in base64, in everything that an image consists of.
    #[track_caller]
    pub(crate) fn holds_no_secret(&self, image: &str) {
        let folder = self.place.scene.folder.path().join("saved");
        fs::create_dir_all(&folder).unwrap();
        let mut save = Command::new("docker")
            .args(["save", image])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let unpacked = Command::new("tar")
            .args(["-x", "-C"])
            .arg(&folder)
            .stdin(save.stdout.take().unwrap())
            .status();
        assert!(unpacked.unwrap().success() && save.wait().unwrap().success());
        let manifest = fs::read(folder.join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let layers: Vec<&str> = manifest[0]["Layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| layer.as_str().unwrap())
            .collect();
        let config = fs::read_to_string(folder.join(manifest[0]["Config"].as_str().unwrap())).unwrap();
        self.check("the configuration of the image", config.as_bytes());
        let history = docker(&["history", "--no-trunc", image]).unwrap();
        self.check("the history of the image", history.as_bytes());
        // The last one is that of the build: each of its files, unpacked from archives and compression.
        let last = folder.join("last");
        fs::create_dir_all(&last).unwrap();
        let layer = folder.join(layers.last().unwrap());
        let unpacked = Command::new("tar")
            .args(["-x", "-f"])
            .arg(&layer)
            .arg("-C")
            .arg(&last)
            .status();
        assert!(unpacked.unwrap().success());
        for layer in &layers {
            let found = self.grep(&["-a", "-o", "-m1"], &folder.join(layer));
            assert_eq!(found, "", "secrets in layer {layer}");
        }
        assert_eq!(self.grep(&["-a", "-r", "-l"], &last), "");
        let unpacked = self.grep_unpacked(&last);
        assert_eq!(unpacked, "", "secrets in compressed files");
        // The way to look would find something.
        let files = Command::new("grep")
            .args(["-r", "-l", "VERSION = \"1.0\""])
            .arg(&last)
            .output();
        assert!(String::from_utf8_lossy(&files.unwrap().stdout).contains("alpha.py"));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[track_caller]
    fn check(&self, what: &str, text: &[u8]) {
        for pattern in self.patterns() {
            let text = String::from_utf8_lossy(text);
            assert!(!text.contains(&pattern), "{pattern} in {what}: {text}");
        }
    }

    fn patterns(&self) -> Vec<String> {
        let mut patterns = Vec::new();
        for (_, secret) in &self.canaries {
            patterns.push(secret.clone());
            for skipped in 0..3 {
                let bytes = &secret.as_bytes()[skipped..];
                patterns.push(STANDARD.encode(&bytes[..bytes.len() - bytes.len() % 3]));
            }
        }
        patterns
    }

    fn grep(&self, options: &[&str], path: &Path) -> String {
        let mut child = Command::new("grep")
            .args(options)
            .args(["-F", "-f", "-"])
            .arg(path)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(self.patterns().join("\n").as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Objects of git, and what is in zip and gzip files.
    fn grep_unpacked(&self, folder: &Path) -> String {
        let program = r"
import gzip, os, sys, zipfile, zlib
patterns = [line.encode() for line in sys.stdin.read().split()]
def texts(path):
    data = open(path, 'rb').read()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield archive.read(name)
    for unpack in (gzip.decompress, zlib.decompress):
        try:
            yield unpack(data)
        except Exception:
            pass
for root, _, names in os.walk(sys.argv[1]):
    for name in names:
        path = os.path.join(root, name)
        if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) < 30_000_000:
            for text in texts(path):
                if any(pattern in text for pattern in patterns):
                    print(path)
";
        let mut child = Command::new("python3")
            .args(["-c", program])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(self.patterns().join("\n").as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Studio {
    fn drop(&mut self) {
        for image in self.images.borrow().iter() {
            docker(&["rmi", "-f", image]);
        }
    }
}

/// A field of an image, as JSON.
pub(crate) fn inspect(image: &str, field: &str) -> Value {
    let format = format!("{{{{json {field}}}}}");
    let text = docker(&["image", "inspect", "--format", &format, image]).unwrap();
    serde_json::from_str(&text).unwrap()
}
