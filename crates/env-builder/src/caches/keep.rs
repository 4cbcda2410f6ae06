//! Keeping an environment that was built, for the tasks that come after.

use std::path::Path;
use std::time::Instant;

use crate::caches::store::{self, Meta};
use crate::caches::tree::{self, Kind, Orders};
use crate::caches::{Active, Cached, Outcome, Trouble, external, inputs, place};

impl Cached<'_> {
    /// Keeps the environment that was built, unless that can't be. `frozen` is what is installed, if that
    /// is reported.
    pub(crate) fn keep(&mut self, site_packages: &Path, frozen: Option<&[String]>, folder: &Path) {
        let right = self.right.take();
        if self.outcome != Outcome::Built {
            return;
        }
        let Some(active) = &self.active else { return };
        let kept = self.try_keep(active, site_packages, frozen, folder);
        if let Some(right) = right {
            right.ended(kept.is_ok());
        }
        match kept {
            Ok(()) => self.outcome = Outcome::Kept,
            Err(error) => self
                .context
                .warn(&format!("the environment is not kept for other tasks: {error}")),
        }
    }

    fn try_keep(
        &self,
        active: &Active,
        site_packages: &Path,
        frozen: Option<&[String]>,
        folder: &Path,
    ) -> Result<(), Trouble> {
        let begun = Instant::now();
        let store = &active.store;
        let installed = frozen.and_then(|lines| inputs::of_frozen(&active.inputs, lines, folder));
        let mut keys = vec![active.key.clone()];
        keys.extend(installed.filter(|key| *key != active.key));
        // Somebody was faster, or another list has led to the same.
        for key in &keys {
            if let Some(id) = store.find(key)
                && store.read(&id).is_some()
            {
                for key in &keys {
                    store.point(key, &id)?;
                }
                return Ok(());
            }
        }
        let settings = &self.context.settings.venvs_cache;
        if !store::make_room(store, settings.max_entries, settings.min_free_bytes, &|| {
            store.free_bytes()
        })? {
            let mebibytes = settings.min_free_bytes.unwrap_or(0) >> 20;
            return Err(Trouble::Reason(format!(
                "less than {mebibytes} MiB (agent.venvs_cache.free_space_threshold_gb) are free in {}; \
                 make room, for example by removing old environments there",
                store.root().display()
            )));
        }
        let foreign = external::paths(&self.root, site_packages).map_err(Trouble::Reason)?;
        let kind_of = |path: &Path| {
            if place::is_own(path) {
                Kind::Own
            } else {
                Kind::File
            }
        };
        let mut items = tree::list(&self.root, &|path| foreign.contains(path), &kind_of)?;
        if let Some(path) = place::mark(&mut items, &self.root, &self.run) {
            return Err(Trouble::Reason(format!(
                "{} leads to a folder of this task",
                path.display()
            )));
        }
        let draft = store.draft()?;
        let means = self.means(settings);
        let orders = Orders {
            check: false,
            record: true,
            cancel: self.context.host.cancel(),
        };
        let items = tree::transfer(&items, &self.root, &draft.env, &means, &orders)?;
        let pinned = active.inputs.lists.are_pinned();
        let meta = Meta::new(keys, &self.root, active.inputs.python.clone(), pinned);
        draft.publish(meta, &items)?;
        store.sweep_names()?;
        let seconds = begun.elapsed().as_secs_f64();
        self.context.info(&format!(
            "environment kept for other tasks in {seconds:.2} s: {} files by {}",
            items.len(),
            means.name()
        ));
        Ok(())
    }
}
