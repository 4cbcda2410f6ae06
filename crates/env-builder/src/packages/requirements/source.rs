//! Which lists apply: that of the task, or those of its repository.

use std::path::{Path, PathBuf};

use clearml_support::fs::read_limited;
use clearml_task_model::{Requirements, TextOrLines};

use crate::code::info::normal_path;
use crate::packages::requirements::RequirementSet;
use crate::packages::requirements::list::MAX_LIST;
use crate::request::PackageManagerSettings;

/// The lists of the task that count: for pip, and for conda if that is the package manager.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskLists {
    /// `script.requirements.pip`, or what it was before an agent wrote into it.
    pub pip: String,
    /// `script.requirements.conda`, likewise; `None` when the task does not have it.
    pub conda: Option<String>,
}

/// The lists of the task, unless all of them are empty or the configuration passes them over.
#[must_use]
pub fn of_task(requirements: Option<&Requirements>, settings: &PackageManagerSettings) -> Option<TaskLists> {
    let requirements = requirements.filter(|_| !settings.force_repo_requirements_txt)?;
    let (mut pip, mut conda) = (&requirements.pip, &requirements.conda);
    if settings.force_original_requirements {
        if requirements.org_pip.is_some() {
            pip = &requirements.org_pip;
        } else if requirements.org_conda.is_some() {
            conda = &requirements.org_conda;
        }
    }
    let text = |field: &Option<TextOrLines>| field.as_ref().map(TextOrLines::text);
    let lists = TaskLists {
        pip: text(pip).unwrap_or_default(),
        conda: text(conda),
    };
    let blank = |text: &str| text.trim().is_empty();
    let empty = blank(&lists.pip) && lists.conda.as_deref().is_none_or(blank);
    (!empty).then_some(lists)
}

/// The text of a file whose encoding nobody has declared: by its byte order mark, else UTF-8. Bytes that
/// are not valid stand in comments, if anywhere.
pub(crate) fn decoded(bytes: &[u8]) -> String {
    let wide = |from: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes[2..]
            .chunks_exact(2)
            .map(|pair| from([pair[0], pair[1]]))
            .collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        _ => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            String::from_utf8_lossy(bytes).into_owned()
        }
    }
}

/// The `requirements.txt` files from the repository root down to the folder of the entry script, which has
/// to be inside.
pub(crate) fn of_repository(root: &Path, working_dir: &str, entry_point: &str) -> Vec<RequirementSet> {
    let script = entry_point
        .split_whitespace()
        .next()
        .filter(|word| !word.starts_with('-'))
        .unwrap_or("x");
    let relative = normal_path(&format!("{working_dir}/{script}"));
    let mut folders = vec![root.to_owned()];
    let parts: Vec<&str> = relative.split('/').collect();
    let inside = !relative.starts_with('/') && parts.first() != Some(&"..");
    for part in parts
        .iter()
        .take(parts.len() - 1)
        .filter(|part| inside && **part != ".")
    {
        folders.push(folders[folders.len() - 1].join(part));
    }
    let read = |folder: PathBuf| {
        let file = folder.join("requirements.txt");
        // A link in a repository may lead to something that never ends.
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let text = decoded(&read_limited(&file, MAX_LIST).ok()?);
        Some(RequirementSet {
            includes: folder,
            ..RequirementSet::new(&file.display().to_string(), &text, root)
        })
    };
    folders.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn lists_of_any_encoding_are_read_and_things_that_never_end_are_not() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        let file = root.join("requirements.txt");
        let wide: Vec<u8> = "\u{feff}six\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        for bytes in [&b"six\n"[..], b"\xef\xbb\xbfsix\n", b"six\n# caf\xe9\n", &wide] {
            fs::write(&file, bytes).unwrap();
            let sets = of_repository(root, ".", "main.py");
            assert!(sets[0].text.starts_with("six\n"), "{:?}", sets[0].text);
        }
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
        assert!(of_repository(root, ".", "main.py").is_empty());
    }

    #[test]
    fn files_of_a_repository_from_the_root_to_the_script() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("repository");
        fs::create_dir_all(root.join("a/b")).unwrap();
        for name in ["requirements.txt", "a/b/requirements.txt", "../requirements.txt"] {
            fs::write(root.join(name), name).unwrap();
        }
        let found = |working_dir: &str, entry: &str| -> Vec<String> {
            let sets = of_repository(&root, working_dir, entry);
            sets.into_iter().map(|set| set.text).collect()
        };
        let both = ["requirements.txt", "a/b/requirements.txt"];
        assert_eq!(found(".", "a/b/t.py"), both);
        assert_eq!(found("a", "b/t.py --x"), both);
        assert_eq!(found("a/b", "../t.py"), both[..1]);
        assert_eq!(found(".", "../t.py"), both[..1]);
        assert_eq!(found("", "-m a.b.t"), both[..1]);
    }

    #[test]
    fn which_list_of_the_task_counts() {
        let pick = |requirements: Value, change: fn(&mut PackageManagerSettings)| {
            let mut settings = PackageManagerSettings::default();
            change(&mut settings);
            let requirements: Requirements = serde_json::from_value(requirements).unwrap();
            of_task(Some(&requirements), &settings).map(|lists| (lists.pip, lists.conda))
        };
        let plain = |_: &mut PackageManagerSettings| {};
        let original = |settings: &mut PackageManagerSettings| settings.force_original_requirements = true;
        let repository = |settings: &mut PackageManagerSettings| settings.force_repo_requirements_txt = true;
        let some = |pip: &str, conda: Option<&str>| Some((pip.to_owned(), conda.map(str::to_owned)));
        assert_eq!(pick(json!({}), plain), None);
        assert_eq!(pick(json!({"pip": "", "conda": null}), plain), None);
        assert_eq!(pick(json!({"pip": [" "]}), plain), None);
        assert_eq!(
            pick(json!({"pip": "# Python 3.10\n"}), plain),
            some("# Python 3.10\n", None)
        );
        assert_eq!(pick(json!({"pip": ["a", "b"]}), plain), some("a\nb", None));
        assert_eq!(pick(json!({"conda": "a"}), plain), some("", Some("a")));
        assert_eq!(pick(json!({"pip": "a", "org_pip": "b"}), plain), some("a", None));
        assert_eq!(
            pick(json!({"pip": "a", "org_pip": "b"}), original),
            some("b", None)
        );
        assert_eq!(pick(json!({"pip": "a"}), original), some("a", None));
        let conda = json!({"pip": "p", "conda": "a", "org_conda": "b"});
        assert_eq!(pick(conda, original), some("p", Some("b")));
        assert_eq!(pick(json!({"pip": "a"}), repository), None);
    }
}
