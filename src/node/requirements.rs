//! Checks that the configuration has everything that the contracts need.

use std::sync::Arc;

use crate::config::{Config, ConfigError, SettingMistake};
use crate::contract::model::{AuthMode, Contract};

/// The entry of `api.keys[].contracts` that means every contract.
const ALL: &str = "*";

/// Finds keys and hooks that the contracts need and the configuration lacks, and contracts that an API key names but
/// the node does not have. In development mode hooks may be missing, so that contracts can be tried without all their
/// backends.
///
/// # Errors
/// Returns every mistake.
pub fn check_requirements(config: &Config, contracts: &[Arc<Contract>]) -> Result<(), ConfigError> {
    let mut mistakes = Vec::new();
    if contracts.is_empty() {
        let problem = "names no contract: every client would be refused".to_owned();
        mistakes.push(mistake("contracts.files", problem, "name contract files, or embedded:NAME"));
    }
    for contract in contracts {
        keys(config, contract, &mut mistakes);
        hooks(config, contract, &mut mistakes);
    }
    api_keys(config, contracts, &mut mistakes);
    if mistakes.is_empty() { Ok(()) } else { Err(ConfigError { mistakes }) }
}

fn keys(config: &Config, contract: &Contract, mistakes: &mut Vec<SettingMistake>) {
    let has_keys = !config.auth.keys.is_empty() || config.auth.jwks.is_some();
    if contract.auth.mode == AuthMode::Required && !has_keys {
        let problem = format!("is empty, and the contract {:?} needs tokens: nobody could connect", contract.name);
        mistakes.push(mistake("auth.keys", problem, "add a key, or set auth.jwks.url"));
    }
}

fn hooks(config: &Config, contract: &Contract, mistakes: &mut Vec<SettingMistake>) {
    let mut told: Vec<&str> = Vec::new();
    for hook in contract.hooks() {
        if config.hooks.contains_key(hook) || told.contains(&hook) {
            continue;
        }
        told.push(hook);
        let problem = format!("is missing, and the contract {:?} calls the hook {hook:?}", contract.name);
        if config.node.dev {
            tracing::warn!("hooks.{hook}.url {problem}; until it is set, calls of this hook fail");
        } else {
            mistakes.push(mistake(&format!("hooks.{hook}.url"), problem, "set the URL of the backend"));
        }
    }
}

fn api_keys(config: &Config, contracts: &[Arc<Contract>], mistakes: &mut Vec<SettingMistake>) {
    let is_known = |name: &str| name == ALL || contracts.iter().any(|contract| &*contract.name == name);
    for (index, key) in config.api.keys.iter().enumerate() {
        for name in key.contracts.iter().filter(|name| !is_known(name)) {
            let problem = format!("names {name:?}, which is not a contract of this node");
            let remedy = "write the contract's `name`, or \"*\" for all";
            mistakes.push(mistake(&format!("api.keys[{index}].contracts"), problem, remedy));
        }
    }
}

fn mistake(key: &str, problem: String, remedy: &str) -> SettingMistake {
    SettingMistake { key: key.to_owned(), value: None, layer: None, problem, remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ApiKeySettings, AuthKeySettings, HookSettings};
    use crate::contract::load::{Source, load_sources};

    const CONTRACT: &str = "name = \"c\"\nnamespace = \"/\"\nsummary = \"c\"\n[auth]\nmode = \"required\"\n[client.a]\ncall = \"h\"\n[client.b]\ncall = \"h\"\n";

    fn told(config: &Config) -> Vec<String> {
        let source = Source { name: "c.toml".into(), text: CONTRACT.into() };
        let contracts: Vec<_> = load_sources(vec![source]).unwrap().into_iter().flat_map(|n| n.contracts).collect();
        let mistakes = check_requirements(config, &contracts).err().map_or_else(Vec::new, |error| error.mistakes);
        mistakes.iter().map(SettingMistake::to_string).collect()
    }

    #[test]
    fn a_node_without_contracts_would_serve_nobody() {
        let told = check_requirements(&Config::default(), &[]).unwrap_err().to_string();
        assert!(told.starts_with("contracts.files: names no contract"), "{told}");
    }

    #[test]
    fn what_contracts_need_is_told_once_each() {
        let mut config = Config::default();
        config
            .api
            .keys
            .push(ApiKeySettings { contracts: vec!["c".into(), "d".into(), "*".into()], ..ApiKeySettings::default() });
        assert_eq!(
            told(&config),
            [
                "auth.keys: is empty, and the contract \"c\" needs tokens: nobody could connect; add a key, or set auth.jwks.url",
                "hooks.h.url: is missing, and the contract \"c\" calls the hook \"h\"; set the URL of the backend",
                "api.keys[0].contracts: names \"d\", which is not a contract of this node; write the contract's `name`, or \"*\" for all",
            ]
        );
        config.api.keys.clear();
        config.auth.keys.push(AuthKeySettings::default());
        config.hooks.insert("h".into(), HookSettings::default());
        assert_eq!(told(&config), Vec::<String>::new());
    }

    #[test]
    fn development_does_without_hooks() {
        let mut config = Config::default();
        config.node.dev = true;
        config.auth.keys.push(AuthKeySettings::default());
        assert_eq!(told(&config), Vec::<String>::new());
    }
}
