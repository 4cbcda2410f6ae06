//! `--mount` and `--volume`.

use std::collections::HashMap;

use bollard::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountTmpfsOptions, MountType,
    MountVolumeOptions,
};

use super::draft::Draft;
use super::values::{bytes, comma_separated, integer, pair, switch};

/// `[SOURCE:]TARGET[:OPTIONS]`; the engine reads it. A source that begins with a dot is a folder beside the
/// caller, and an agent has no such place.
pub(super) fn volume(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("SOURCE:TARGET is expected".to_owned());
    }
    match text.split_once(':') {
        Some(("", _)) => return Err("its source is empty".to_owned()),
        Some((source, _)) if source == "." || source.starts_with("./") || source.starts_with("../") => {
            return Err("its source is not an absolute path, nor the name of a volume".to_owned());
        }
        Some((_, target)) if !target.starts_with('/') => {
            return Err("its target is not an absolute path".to_owned());
        }
        Some(_) => draft.host.binds.get_or_insert_default().push(text.to_owned()),
        None if text.starts_with('/') => draft.body.volumes.get_or_insert_default().push(text.to_owned()),
        None => return Err("its target is not an absolute path".to_owned()),
    }
    Ok(())
}

pub(super) fn mount(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    let mut mount = Mount {
        typ: Some(MountType::VOLUME),
        ..Mount::default()
    };
    for field in comma_separated(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), value.to_owned()),
            None => (field.to_ascii_lowercase(), "true".to_owned()),
        };
        let known = general(&mut mount, &key, &value)?
            || of_bind(&mut mount, &key, &value)?
            || of_volume(&mut mount, &key, &value)?
            || of_tmpfs(&mut mount, &key, &value)?;
        if !known {
            return Err(format!("{key:?} is not known in it"));
        }
    }
    check(&mount)?;
    draft.host.mounts.get_or_insert_default().push(mount);
    Ok(())
}

fn general(mount: &mut Mount, key: &str, value: &str) -> Result<bool, String> {
    match key {
        "type" => {
            mount.typ = Some(match value.to_ascii_lowercase().as_str() {
                "bind" => MountType::BIND,
                "volume" => MountType::VOLUME,
                "tmpfs" => MountType::TMPFS,
                "npipe" => return Err("type npipe exists on Windows only".to_owned()),
                "image" => MountType::IMAGE,
                other => return Err(format!("type {other:?} is not bind, volume, tmpfs or image")),
            });
        }
        "source" | "src" => mount.source = Some(value.to_owned()),
        "target" | "dst" | "destination" => mount.target = Some(value.to_owned()),
        "readonly" | "ro" => mount.read_only = Some(switch(value)?),
        "consistency" => mount.consistency = Some(value.to_ascii_lowercase()),
        _ => return Ok(false),
    }
    Ok(true)
}

fn of_bind(mount: &mut Mount, key: &str, value: &str) -> Result<bool, String> {
    let options = |mount: &mut Mount, set: &dyn Fn(&mut MountBindOptions)| {
        set(mount.bind_options.get_or_insert_default());
    };
    match key {
        "bind-propagation" => {
            use MountBindOptionsPropagationEnum as P;
            let propagation = match value.to_ascii_lowercase().as_str() {
                "private" => P::PRIVATE,
                "rprivate" => P::RPRIVATE,
                "shared" => P::SHARED,
                "rshared" => P::RSHARED,
                "slave" => P::SLAVE,
                "rslave" => P::RSLAVE,
                other => return Err(format!("bind-propagation {other:?} is not known")),
            };
            options(mount, &|o| o.propagation = Some(propagation));
        }
        "bind-nonrecursive" => {
            let value = switch(value)?;
            options(mount, &|o| o.non_recursive = Some(value));
        }
        "bind-recursive" => match value {
            "enabled" => {}
            "disabled" => options(mount, &|o| o.non_recursive = Some(true)),
            "writable" => options(mount, &|o| o.read_only_non_recursive = Some(true)),
            "readonly" => options(mount, &|o| o.read_only_force_recursive = Some(true)),
            other => return Err(format!("bind-recursive {other:?} is not known")),
        },
        "bind-create-src" => {
            let value = switch(value)?;
            options(mount, &|o| o.create_mountpoint = Some(value));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn of_volume(mount: &mut Mount, key: &str, value: &str) -> Result<bool, String> {
    let options =
        |mount: &mut Mount| -> MountVolumeOptions { mount.volume_options.take().unwrap_or_default() };
    let mut changed = options(mount);
    match key {
        "volume-nocopy" => changed.no_copy = Some(switch(value)?),
        "volume-subpath" => changed.subpath = Some(value.to_owned()),
        "volume-label" => {
            let (name, value) = pair(value)?;
            changed
                .labels
                .get_or_insert_with(HashMap::new)
                .insert(name, value);
        }
        "volume-driver" => changed.driver_config.get_or_insert_default().name = Some(value.to_owned()),
        "volume-opt" => {
            let (name, value) = pair(value)?;
            let driver = changed.driver_config.get_or_insert_default();
            driver
                .options
                .get_or_insert_with(HashMap::new)
                .insert(name, value);
        }
        _ => {
            if changed != MountVolumeOptions::default() {
                mount.volume_options = Some(changed);
            }
            return Ok(false);
        }
    }
    mount.volume_options = Some(changed);
    Ok(true)
}

fn of_tmpfs(mount: &mut Mount, key: &str, value: &str) -> Result<bool, String> {
    match key {
        "tmpfs-size" => tmpfs(mount).size_bytes = Some(bytes(value)?),
        "tmpfs-mode" => {
            let mode =
                i64::from_str_radix(value, 8).map_err(|_| "tmpfs-mode is not an octal number".to_owned())?;
            tmpfs(mount).mode = Some(mode);
        }
        "tmpfs-uid" | "tmpfs-gid" => {
            integer::<u32>(value)?;
            return Err(format!(
                "{key} is not offered by the Engine API; use --tmpfs PATH:{}={value}",
                &key[6..]
            ));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn tmpfs(mount: &mut Mount) -> &mut MountTmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

fn check(mount: &Mount) -> Result<(), String> {
    let Some(target) = mount.target.as_deref().filter(|target| !target.is_empty()) else {
        return Err("target=PATH is missing in it".to_owned());
    };
    if !target.starts_with('/') {
        return Err("its target is not an absolute path".to_owned());
    }
    let relative = mount
        .source
        .as_deref()
        .is_none_or(|source| !source.starts_with('/'));
    match mount.typ {
        Some(MountType::BIND) if relative => Err("its source is not an absolute path".to_owned()),
        Some(MountType::TMPFS) if mount.source.is_some() => Err("a tmpfs has no source".to_owned()),
        _ => Ok(()),
    }
}
