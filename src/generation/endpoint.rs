//! Where a language model answers, and with which key.

use anyhow::{Result, anyhow, bail, ensure};
use reqwest::Url;

use super::secret::Secret;

/// The header that carries the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// `Authorization: Bearer KEY`
    Bearer,
    /// `api-key: KEY`
    ApiKey,
}

/// An address that answers chat completions in OpenAI's form.
#[derive(Clone)]
pub struct Endpoint {
    pub(super) url: Url,
    pub(super) key: Secret,
    pub(super) authorization: Authorization,
    /// The model named in a request; none where the address names it.
    pub(super) model: Option<String>,
    /// Where the key came from, for advice.
    pub(super) key_variable: String,
    identity: String,
}

/// Reads an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

const AZURE: [&str; 3] = ["AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_DEPLOYMENT_NAME"];
const AZURE_VERSION: &str = "AZURE_OPENAI_API_VERSION";
const AZURE_DEFAULT_VERSION: &str = "2024-02-15-preview";

impl Endpoint {
    /// A server that speaks OpenAI's protocol: `base_url` ends before `/chat/completions`; the key is in the variable `key_variable`.
    ///
    /// # Errors
    /// The variable is not set, or `base_url` is no plain address.
    pub fn openai(base_url: &str, model: &str, key_variable: &str, environment: Environment) -> Result<Self> {
        let [key] = variables([key_variable], environment)?;
        let base = address(base_url).map_err(|e| anyhow!("`base_url` {e}"))?;
        let url = join(&base, &["chat", "completions"])?;
        let key = Secret::new(&key);
        ensure!(
            !key.is_in(base_url) && !key.is_in(model),
            "the key stands in `base_url` or `model`, which are recorded; take it out"
        );
        let identity = format!("openai `{model}` at {}", base.as_str().trim_end_matches('/'));
        Ok(Endpoint {
            url,
            key,
            authorization: Authorization::Bearer,
            model: Some(model.to_owned()),
            key_variable: key_variable.to_owned(),
            identity,
        })
    }

    /// A deployment on Azure OpenAI, described by `AZURE_OPENAI_API_KEY`, `AZURE_OPENAI_ENDPOINT`, `AZURE_OPENAI_DEPLOYMENT_NAME` and,
    /// if wanted, `AZURE_OPENAI_API_VERSION`.
    ///
    /// # Errors
    /// A variable is not set, or the endpoint is no plain address.
    pub fn azure(environment: Environment) -> Result<Self> {
        let [key, endpoint, deployment] = variables(AZURE, environment)?;
        let version = set(AZURE_VERSION, environment).unwrap_or_else(|| AZURE_DEFAULT_VERSION.into());
        let base = address(&endpoint).map_err(|e| anyhow!("the address in `AZURE_OPENAI_ENDPOINT` {e}"))?;
        let mut url = join(&base, &["openai", "deployments", &deployment, "chat", "completions"])?;
        url.query_pairs_mut().append_pair("api-version", &version);
        let key = Secret::new(&key);
        for (name, value) in [(AZURE[1], &endpoint), (AZURE[2], &deployment), (AZURE_VERSION, &version)] {
            ensure!(!key.is_in(value), "the key stands in `{name}`, which is recorded; take it out");
        }
        let place = base.as_str().trim_end_matches('/');
        let identity = format!("azure_openai deployment `{deployment}` at {place}, API version {version}");
        let (authorization, key_variable) = (Authorization::ApiKey, AZURE[0].to_owned());
        Ok(Endpoint { url, key, authorization, model: None, key_variable, identity })
    }

    /// Provider, model and address, without the key: what the answers depend on.
    pub fn identity(&self) -> &str {
        &self.identity
    }
}

/// A variable's value, unless it is unset or blank.
fn set(name: &str, environment: Environment) -> Option<String> {
    environment(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The values of variables, all of which must be set.
fn variables<const N: usize>(names: [&str; N], environment: Environment) -> Result<[String; N]> {
    let missing: Vec<&str> = names.into_iter().filter(|name| set(name, environment).is_none()).collect();
    if !missing.is_empty() {
        bail!(
            "the language model needs `{}`, which {} not set; set {} in the environment or in a file `.env` in the working directory \
             (a server that checks no key takes any value), or choose `provider: extractive`, which needs no server",
            missing.join("`, `"),
            if missing.len() == 1 { "is" } else { "are" },
            if missing.len() == 1 { "it" } else { "them" },
        );
    }
    Ok(names.map(|name| set(name, environment).unwrap_or_default()))
}

/// Reads an address. What may hold a secret is refused, as addresses are recorded; the message does not repeat the address.
///
/// # Errors
/// A clause that goes on after the name of the parameter.
pub fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|e| format!("is no address ({e}); write one like `https://api.openai.com/v1`"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("must begin with `https://` or `http://` and name a host".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or a password, which would be recorded; give the key in an environment variable".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("holds `?` or `#`; give only the address before them, and a key in an environment variable".into());
    }
    Ok(url)
}

fn join(base: &Url, segments: &[&str]) -> Result<Url> {
    let mut url = base.clone();
    // `.` and `..` would be dropped from the path and lead elsewhere.
    ensure!(!segments.iter().any(|s| matches!(*s, "." | "..")), "`.` and `..` name no deployment");
    match url.path_segments_mut() {
        Ok(mut path) => path.pop_if_empty().extend(segments),
        Err(()) => bail!("the address cannot be extended with a path"),
    };
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-0123456789abcdef";

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
    }

    #[test]
    fn missing_variables_are_named() {
        let none = env(&[]);
        let message = Endpoint::openai("https://a/v1", "m", "MY_KEY", &none).err().unwrap().to_string();
        insta::assert_snapshot!(message, @"the language model needs `MY_KEY`, which is not set; set it in the environment or in a file `.env` in the working directory (a server that checks no key takes any value), or choose `provider: extractive`, which needs no server");
        let one = env(&[("AZURE_OPENAI_API_KEY", KEY), ("AZURE_OPENAI_ENDPOINT", " ")]);
        let message = Endpoint::azure(&one).err().unwrap().to_string();
        assert!(message.contains("`AZURE_OPENAI_ENDPOINT`, `AZURE_OPENAI_DEPLOYMENT_NAME`, which are not set"), "{message}");
        assert!(!message.contains(KEY));
    }

    #[test]
    fn addresses_are_built_as_the_services_want_them() {
        for base in ["https://host:8000/v1", "https://host:8000/v1/"] {
            let one = env(&[("K", KEY)]);
            let endpoint = Endpoint::openai(base, "m", "K", &one).unwrap();
            assert_eq!(endpoint.url.as_str(), "https://host:8000/v1/chat/completions");
            assert_eq!(endpoint.identity(), "openai `m` at https://host:8000/v1");
        }
        let pairs = [(AZURE[0], KEY), (AZURE[1], "https://me.example.com/"), (AZURE[2], "gpt/4 o")];
        let endpoint = Endpoint::azure(&env(&pairs)).unwrap();
        assert_eq!(
            endpoint.url.as_str(),
            "https://me.example.com/openai/deployments/gpt%2F4%20o/chat/completions?api-version=2024-02-15-preview"
        );
        assert_eq!(
            endpoint.identity(),
            "azure_openai deployment `gpt/4 o` at https://me.example.com, API version 2024-02-15-preview"
        );
    }

    #[test]
    fn secrets_in_addresses_are_refused_and_not_repeated() {
        for bad in ["https://me:hidden@host/v1", "https://hidden@host", "https://host/v1?key=hidden", "https://host/#hidden"] {
            let message = address(bad).unwrap_err();
            assert!(!message.contains("hidden"), "{message}");
        }
        for bad in ["host/v1", "ftp://host/hidden", "", "file:///etc/passwd", "https://"] {
            assert!(address(bad).is_err(), "{bad}");
        }
        // A key that was put into the wrong variable.
        let pairs = [(AZURE[0], KEY), (AZURE[1], "https://me.example.com"), (AZURE[2], KEY)];
        insta::assert_snapshot!(Endpoint::azure(&env(&pairs)).err().unwrap(), @"the key stands in `AZURE_OPENAI_DEPLOYMENT_NAME`, which is recorded; take it out");
        let one = env(&[("K", KEY)]);
        assert!(Endpoint::openai(&format!("https://host/{KEY}"), "m", "K", &one).is_err());
    }
}
