//! Arguments of `docker run`, as `singularity exec` and `apptainer exec` understand them.

use crate::quote;

/// Flags of singularity that mean nothing to Docker and may be passed on.
const PASSED: [&str; 9] = [
    "--nv",
    "--rocm",
    "--uts",
    "--containall",
    "--contain",
    "--cleanenv",
    "--writable-tmpfs",
    "--no-home",
    "--pid",
];

/// Options of Docker whose argument is the next word.
const WITH_ARGUMENT: [&str; 14] = [
    "-e",
    "--env",
    "-v",
    "--volume",
    "--mount",
    "-w",
    "--workdir",
    "--network",
    "--ipc",
    "--shm-size",
    "--gpus",
    "--name",
    "-u",
    "--user",
];

/// The flags, quoted for a shell, and what was left out.
pub(crate) fn translate(arguments: &str) -> Result<(Vec<String>, Vec<String>), String> {
    let words = shlex::split(arguments).ok_or("a quote is not closed in the task's container arguments")?;
    let mut flags = Vec::new();
    let mut warnings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) if word.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
            _ => (word.clone(), None),
        };
        let mut argument = || {
            let value = attached.clone().or_else(|| words.next());
            value.ok_or_else(|| format!("{name} has no value in the task's container arguments"))
        };
        match name.as_str() {
            "-e" | "--env" => push(&mut flags, "--env", &argument()?),
            "-v" | "--volume" => push(&mut flags, "--bind", &argument()?),
            "-w" | "--workdir" => push(&mut flags, "--pwd", &argument()?),
            "--mount" => match bind(&argument()?) {
                Some(bind) => push(&mut flags, "--bind", &bind),
                None => warnings.push(format!(
                    "container argument {word} is left out: only binds can be mounted"
                )),
            },
            flag if PASSED.contains(&flag) => flags.push(flag.to_owned()),
            flag => {
                warnings.push(format!(
                    "container argument {flag} means nothing to singularity; it is left out"
                ));
                if attached.is_none() && WITH_ARGUMENT.contains(&flag) {
                    words.next();
                }
            }
        }
    }
    Ok((flags, warnings))
}

fn push(flags: &mut Vec<String>, flag: &str, value: &str) {
    flags.push(flag.to_owned());
    flags.push(quote::word(value));
}

/// `type=bind,source=/a,target=/b,readonly` as `/a:/b:ro`.
fn bind(mount: &str) -> Option<String> {
    let field = |names: &[&str]| {
        mount.split(',').find_map(|part| {
            let (name, value) = part.split_once('=')?;
            names.contains(&name).then(|| value.to_owned())
        })
    };
    if field(&["type"]).is_some_and(|kind| kind != "bind") {
        return None;
    }
    let mut bind = format!(
        "{}:{}",
        field(&["source", "src"])?,
        field(&["target", "dst", "destination"])?
    );
    if mount
        .split(',')
        .any(|part| matches!(part, "readonly" | "ro" | "readonly=true"))
    {
        bind.push_str(":ro");
    }
    Some(bind)
}

/// An image as singularity wants it: a name alone is one of a registry.
pub(crate) fn image(image: &str) -> String {
    let is_file = image.starts_with('/')
        || image.starts_with("./")
        || [".sif", ".img", ".sqsh"].iter().any(|end| image.ends_with(end));
    if image.contains("://") || is_file {
        image.to_owned()
    } else {
        format!("docker://{image}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_docker_become_flags_of_singularity() {
        let (flags, warnings) =
            translate("-e A=1 -v /d:/e:ro --ipc=host --nv --gpus all -e 'B=x y'").unwrap();
        assert_eq!(flags.join(" "), "--env A=1 --bind /d:/e:ro --nv --env 'B=x y'");
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        let (flags, _) = translate("--mount type=bind,source=/a,target=/b,readonly -w /x").unwrap();
        assert_eq!(flags.join(" "), "--bind /a:/b:ro --pwd /x");
        assert!(translate("-e").is_err() && translate("-e 'x").is_err());
    }

    #[test]
    fn names_of_images_get_a_scheme() {
        for (given, expected) in [
            ("nvidia/cuda:12.4", "docker://nvidia/cuda:12.4"),
            ("/images/a.sif", "/images/a.sif"),
            ("oras://r/x:1", "oras://r/x:1"),
            ("a.sif", "a.sif"),
        ] {
            assert_eq!(image(given), expected);
        }
    }
}
