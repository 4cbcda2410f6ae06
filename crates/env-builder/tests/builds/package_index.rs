//! A package index, as small as can be.

use std::path::Path;

use crate::web::Site;

/// A package index of the wheels and archives in a folder.
pub(crate) fn package_index(folder: &Path) -> Site {
    let program = r#"
import os, sys, urllib.parse
root, path = os.environ["INDEX_ROOT"], urllib.parse.unquote(os.environ["PATH_INFO"]).strip("/")
out = sys.stdout.buffer
files = sorted(os.listdir(root))
if path.startswith("files/"):
    name = path.rsplit("/", 1)[1]
    out.write(b"Content-Type: application/octet-stream\r\n\r\n")
    out.write(open(os.path.join(root, name), "rb").read())
    sys.exit()
wanted = path.rsplit("/", 1)[-1]
found = [] if path.startswith("none") else [f for f in files if f.split("-")[0].lower().replace("_", "-") == wanted]
if found:
    out.write(b"Content-Type: text/html\r\n\r\n<!DOCTYPE html><html><body>")
    for f in found:
        out.write(f'<a href="/files/{f}">{f}</a>\n'.replace("+", "%2B").encode())
    out.write(b"</body></html>")
else:
    status = b"200 OK" if path.split("/")[-1] == os.environ.get("THERE") else b"404 Not Found"
    out.write(b"Status: " + status + b"\r\nContent-Type: text/html\r\n\r\n<!DOCTYPE html><html><body></body></html>")
"#;
    Site {
        cgi: ["python3", "-I", "-c", program].map(str::to_owned).to_vec(),
        env: vec![("INDEX_ROOT".to_owned(), folder.display().to_string())],
        wanted: None,
        busy: 0,
        redirect: None,
    }
}
