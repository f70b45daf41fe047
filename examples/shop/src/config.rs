//! What Standfast tells a replica, read once from the environment.

use std::error::Error;
use std::fmt;

/// The configuration of one replica.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen (`HOST`, default 127.0.0.1).
    pub host: String,
    /// The port to listen at (`PORT`); 0 takes a free one.
    pub port: u16,
    /// The failure domain (`STANDFAST_ZONE`).
    pub zone: String,
    /// This replica's name (`STANDFAST_REPLICA`).
    pub replica: String,
    /// Where this service's state is (`STANDFAST_STATE_URL`).
    pub state_url: String,
    /// The service `inventory` (`INVENTORY_URL`); only `orders` needs it.
    pub inventory_url: Option<String>,
    /// The service `payments` (`PAYMENTS_URL`); only `orders` needs it.
    pub payments_url: Option<String>,
}

/// The environment lacks something, or holds nonsense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadConfig(String);

impl fmt::Display for BadConfig {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}", self.0)
    }
}

impl Error for BadConfig {}

impl Config {
    /// Reads the variables that `lookup` finds.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, BadConfig> {
        let port = required("PORT", lookup("PORT"))?;
        let port =
            port.parse().map_err(|_| BadConfig(format!("PORT is `{port}`, which is no port number")))?;
        let state_url = required("STANDFAST_STATE_URL", lookup("STANDFAST_STATE_URL"))?;
        Ok(Self {
            host: lookup("HOST").unwrap_or_else(|| "127.0.0.1".to_owned()),
            port,
            zone: lookup("STANDFAST_ZONE").unwrap_or_default(),
            replica: lookup("STANDFAST_REPLICA").unwrap_or_default(),
            state_url: checked_url("STANDFAST_STATE_URL", state_url)?,
            inventory_url: lookup("INVENTORY_URL")
                .map(|url| checked_url("INVENTORY_URL", url))
                .transpose()?,
            payments_url: lookup("PAYMENTS_URL").map(|url| checked_url("PAYMENTS_URL", url)).transpose()?,
        })
    }

    /// Reads the environment.
    pub fn from_env() -> Result<Self, BadConfig> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }
}

/// The value of a variable without which the service cannot work.
pub fn required(name: &str, value: Option<String>) -> Result<String, BadConfig> {
    value.ok_or_else(|| {
        BadConfig(format!("{name} is not set\nhint: Standfast sets it; run `standfast up examples/shop`"))
    })
}

fn checked_url(name: &str, url: String) -> Result<String, BadConfig> {
    let sound = url
        .parse::<axum::http::Uri>()
        .is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some() && uri.query().is_none());
    if sound {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    Err(BadConfig(format!("{name} is `{url}`, which is no address like http://127.0.0.1:7701/path")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(extra: (&str, &str)) -> Result<Config, BadConfig> {
        let known = [("PORT", "8080"), ("STANDFAST_STATE_URL", "http://127.0.0.1:7701/state/orders/"), extra];
        Config::from_lookup(|name| {
            known.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_replicas_environment_is_read() {
        let config = read(("INVENTORY_URL", "http://127.0.0.1:7702")).unwrap();
        assert_eq!((config.host.as_str(), config.port), ("127.0.0.1", 8080));
        assert_eq!(config.state_url, "http://127.0.0.1:7701/state/orders");
        assert_eq!(config.inventory_url.as_deref(), Some("http://127.0.0.1:7702"));
        assert_eq!(config.payments_url, None);
    }

    #[test]
    fn nonsense_is_named() {
        assert_eq!(
            read(("PORT", "http")).unwrap_err().to_string(),
            "PORT is `http`, which is no port number"
        );
        for url in ["https://secure", "nowhere", "http://h/?q=1"] {
            let error = read(("PAYMENTS_URL", url)).unwrap_err().to_string();
            assert!(error.starts_with("PAYMENTS_URL is"), "{error}");
        }
        let missing = Config::from_lookup(|_| None).unwrap_err().to_string();
        assert!(missing.starts_with("PORT is not set\nhint: "), "{missing}");
    }
}
