//! A request for a container while its options are read, and what comes out.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig, NetworkingConfig,
};

use super::FlagError;

/// When to pull the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// If the engine does not have it.
    #[default]
    Missing,
    /// Before every start.
    Always,
    /// Not at all.
    Never,
}

/// What options of `docker run` ask for, as the Engine API takes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunSpec {
    /// The request, without image, command and what the agent adds.
    pub body: ContainerCreateBody,
    /// `--name`.
    pub name: Option<String>,
    /// `--platform`.
    pub platform: Option<String>,
    /// `--pull`.
    pub pull: PullPolicy,
    /// Options that were accepted and say nothing, for the console.
    pub notices: Vec<String>,
}

/// Reads variables of the process that would call docker.
pub(super) type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// A [`RunSpec`] in the making.
pub(super) struct Draft<'a> {
    pub(super) environment: &'a Environment<'a>,
    pub(super) notices: Vec<String>,
    pub(super) body: ContainerCreateBody,
    pub(super) host: HostConfig,
    pub(super) health: HealthConfig,
    pub(super) no_healthcheck: bool,
    pub(super) name: Option<String>,
    pub(super) platform: Option<String>,
    pub(super) pull: PullPolicy,
    /// Names of networks with what they were given by name (`--network name=…,alias=…`).
    pub(super) networks: Vec<(String, EndpointSettings)>,
    /// What the options without a network's name say; for the first network.
    pub(super) endpoint: EndpointSettings,
    /// Variables and labels from files come before those from options.
    pub(super) env_of_files: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) labels_of_files: Vec<(String, String)>,
    pub(super) labels: Vec<(String, String)>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(environment: &'a Environment<'a>) -> Self {
        Self {
            environment,
            notices: Vec::new(),
            body: ContainerCreateBody::default(),
            host: HostConfig::default(),
            health: HealthConfig::default(),
            no_healthcheck: false,
            name: None,
            platform: None,
            pull: PullPolicy::default(),
            networks: Vec::new(),
            endpoint: EndpointSettings::default(),
            env_of_files: Vec::new(),
            env: Vec::new(),
            labels_of_files: Vec::new(),
            labels: Vec::new(),
        }
    }

    pub(super) fn ipam(&mut self) -> &mut EndpointIpamConfig {
        self.endpoint.ipam_config.get_or_insert_default()
    }

    pub(super) fn finish(mut self) -> Result<RunSpec, FlagError> {
        self.healthcheck()?;
        self.networking()?;
        let env: Vec<String> = self.env_of_files.into_iter().chain(self.env).collect();
        if !env.is_empty() {
            self.body.env = Some(env);
        }
        let labels: HashMap<String, String> = self.labels_of_files.into_iter().chain(self.labels).collect();
        if !labels.is_empty() {
            self.body.labels = Some(labels);
        }
        self.body.host_config = Some(self.host);
        Ok(RunSpec {
            body: self.body,
            name: self.name,
            platform: self.platform,
            pull: self.pull,
            notices: self.notices,
        })
    }

    fn healthcheck(&mut self) -> Result<(), FlagError> {
        let any = self.health != HealthConfig::default();
        if self.no_healthcheck && any {
            let text = "--no-healthcheck contradicts the --health-… options; keep one of them";
            return Err(FlagError::Conflict(text.to_owned()));
        }
        if self.no_healthcheck {
            self.health.test = Some(vec!["NONE".to_owned()]);
        }
        if any || self.no_healthcheck {
            self.body.healthcheck = Some(std::mem::take(&mut self.health));
        }
        Ok(())
    }

    /// What was said without a network's name holds for the first network; without one, for the default.
    fn networking(&mut self) -> Result<(), FlagError> {
        let own = std::mem::take(&mut self.endpoint);
        let has_own = own != EndpointSettings::default();
        let mut networks = std::mem::take(&mut self.networks);
        if let Some((first, rest)) = networks.split_first()
            && !rest.is_empty()
            && ["host", "none"].contains(&first.0.as_str())
        {
            let text = format!("--network {} can't be combined with other networks", first.0);
            return Err(FlagError::Conflict(text));
        }
        if networks.is_empty() && has_own {
            networks.push(("default".to_owned(), EndpointSettings::default()));
        }
        let Some((first, settings)) = networks.first_mut() else {
            return Ok(());
        };
        if has_own {
            merge(settings, own).map_err(FlagError::Conflict)?;
        }
        self.host.network_mode.get_or_insert_with(|| first.clone());
        let wanted = networks.len() > 1
            || networks
                .iter()
                .any(|(_, settings)| *settings != EndpointSettings::default());
        if wanted {
            let endpoints_config = Some(networks.into_iter().collect());
            self.body.networking_config = Some(NetworkingConfig { endpoints_config });
        }
        Ok(())
    }
}

/// Two ways to say something about one network must not say different things.
fn merge(into: &mut EndpointSettings, own: EndpointSettings) -> Result<(), String> {
    let twice = |what: &str| format!("{what} of the network is given twice");
    match (&mut into.aliases, own.aliases) {
        (Some(there), Some(more)) => there.extend(more),
        (there @ None, more) => *there = more,
        (Some(_), None) => {}
    }
    if own.mac_address.is_some() && into.mac_address.is_some() {
        return Err(twice("the MAC address"));
    }
    into.mac_address = own.mac_address.or(into.mac_address.take());
    into.links = own.links.or(into.links.take());
    let Some(own) = own.ipam_config else { return Ok(()) };
    let there = into.ipam_config.get_or_insert_default();
    if own.ipv4_address.is_some() && there.ipv4_address.is_some()
        || own.ipv6_address.is_some() && there.ipv6_address.is_some()
    {
        return Err(twice("the address"));
    }
    there.ipv4_address = own.ipv4_address.or(there.ipv4_address.take());
    there.ipv6_address = own.ipv6_address.or(there.ipv6_address.take());
    there.link_local_ips = own.link_local_ips.or(there.link_local_ips.take());
    Ok(())
}
