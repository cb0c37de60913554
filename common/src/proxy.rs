//! Decides which proxy a request goes through, as kubectl and the AWS SDKs do.
//!
//! - `HTTPS_PROXY` is for https, `HTTP_PROXY` for http: the URL of a proxy that speaks http, https or socks5, with
//!   `USER:PASSWORD@` before its host if it wants a login. Without a scheme, http is meant. `socks5h` means the same as
//!   `socks5`: the proxy resolves names in either case.
//! - `NO_PROXY` lists, separated by commas, the servers that are reached directly: `shop.example` and all below it; `.shop.example` or
//!   `*.shop.example`, only what is below it; an address; a network such as `10.0.0.0/8`; `*`, everything. `:PORT` after a
//!   name or an address confines it to that port.
//! - A name in lower case, such as `https_proxy`, counts where the one in upper case is not set.
//! - `localhost`, loopback addresses and those of instance metadata are always reached directly.
//!
//! `ALL_PROXY` is ignored. A kubeconfig's `proxy-url` takes the place of all of this for its cluster.

use crate::Error;
use anyhow::Result;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::uri::Authority;
use http::{HeaderValue, Request, Uri, header};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use percent_encoding::percent_decode_str;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks of the endpoints that give instances, containers and pods their credentials; through a proxy those would be
/// another machine's.
const METADATA: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32)),
];

/// A proxy. Displays without its password.
#[derive(Clone)]
pub struct Proxy {
    pub(crate) kind: ProxyKind,
    /// Host and port.
    pub(crate) authority: Authority,
    /// `USER:PASSWORD`, percent-encoded.
    userinfo: Option<String>,
}

/// The protocol between client and proxy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ProxyKind {
    Http,
    Https,
    Socks5,
}

impl ProxyKind {
    const ALL: [(&str, u16, ProxyKind); 4] = [
        ("http", 80, ProxyKind::Http),
        ("https", 443, ProxyKind::Https),
        ("socks5h", 1080, ProxyKind::Socks5),
        ("socks5", 1080, ProxyKind::Socks5),
    ];

    /// The scheme in a URL for reqwest, for which `socks5` means that the client resolves names.
    fn scheme(self) -> &'static str {
        match self {
            ProxyKind::Http => "http",
            ProxyKind::Https => "https",
            ProxyKind::Socks5 => "socks5h",
        }
    }
}

impl Proxy {
    /// Parses a proxy's URL.
    ///
    /// # Errors
    /// Says what is wrong with it, without quoting it: it may hold a password.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.trim().split_once("://").unwrap_or(("http", url.trim()));
        let kind = ProxyKind::ALL.into_iter().find(|(name, ..)| name.eq_ignore_ascii_case(scheme));
        let (_, port, kind) = kind.ok_or("its scheme is none of http, https and socks5")?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (userinfo, host) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo.to_owned()), host),
            None => (None, authority),
        };
        let host: Authority = host.parse().map_err(|_| "it has no host, or a wrong port")?;
        let port = match host.as_str().strip_prefix(host.host()) {
            Some("" | ":") => port,
            _ => host.port_u16().ok_or("its port is wrong")?,
        };
        let authority = format!("{}:{port}", host.host()).parse().map_err(|_| "its host is wrong")?;
        Ok(Self { kind, authority, userinfo })
    }

    /// The URL with user and password, for another client.
    pub fn url(&self) -> String {
        let at = self.userinfo.as_ref().map(|userinfo| format!("{userinfo}@")).unwrap_or_default();
        format!("{}://{at}{}", self.kind.scheme(), self.authority)
    }

    /// User and password.
    pub(crate) fn login(&self) -> Option<(String, String)> {
        let (user, password) = self.userinfo.as_ref()?.split_once(':').unwrap_or((self.userinfo.as_ref()?, ""));
        let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        Some((decoded(user), decoded(password)))
    }

    /// User and password as the value of `Proxy-Authorization`.
    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        let (user, password) = self.login()?;
        basic(&user, &password)
    }
}

/// User and password as the value of a header, marked as a secret.
pub fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    let login = BASE64_STANDARD.encode(format!("{user}:{password}"));
    let mut value = HeaderValue::try_from(format!("Basic {login}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.kind.scheme(), self.authority)
    }
}

/// Chooses the proxy for each request.
#[derive(Clone)]
pub struct Proxies(Choice);

#[derive(Clone)]
enum Choice {
    /// By the environment's variables.
    Environment { https: Option<Proxy>, http: Option<Proxy>, direct: Vec<Direct> },
    /// The same for all.
    One(Proxy),
}

impl Proxies {
    /// Reads the environment's variables.
    ///
    /// # Errors
    /// The value of a variable is not the URL of a proxy.
    pub fn from_environment() -> Result<Self> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// One proxy for all requests.
    pub fn one(proxy: Proxy) -> Self {
        Self(Choice::One(proxy))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let first = |name: &str| {
            let names = [name.to_owned(), name.to_ascii_lowercase()];
            names.into_iter().find_map(|name| {
                let value = variable(&name).filter(|value| !value.trim().is_empty())?;
                Some((name, value))
            })
        };
        let proxy = |name| {
            let Some((name, url)) = first(name) else { return Ok(None) };
            let wrong = |why| Error::usage(format!("{name} is not the URL of a proxy: {why}"));
            Proxy::parse(&url).map(Some).map_err(|why| wrong(why).hint("for example http://proxy.example:3128"))
        };
        let direct = first("NO_PROXY").map(|(_, list)| list.split(',').filter_map(Direct::parse).collect());
        Ok(Self(Choice::Environment {
            https: proxy("HTTPS_PROXY")?,
            http: proxy("HTTP_PROXY")?,
            direct: direct.unwrap_or_default(),
        }))
    }

    /// The proxy for a request to this URL; `None` if it goes directly, or is no URL.
    pub fn of_url(&self, url: &str) -> Option<&Proxy> {
        self.of(&url.parse().ok()?)
    }

    /// The proxy for a request to this URL; `None` if it goes directly.
    pub(crate) fn of(&self, url: &Uri) -> Option<&Proxy> {
        let (https, http, direct) = match &self.0 {
            Choice::Environment { https, http, direct } => (https.as_ref(), http.as_ref(), direct),
            Choice::One(proxy) => return Some(proxy),
        };
        let (proxy, port) = match url.scheme_str()? {
            "https" => (https?, 443),
            "http" => (http?, 80),
            _ => return None,
        };
        let host = url.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
        let target = Target { address: host.parse().ok(), host, port: url.port_u16().unwrap_or(port) };
        let past = target.is_local() || direct.iter().any(|rule| rule.matches(&target));
        (!past).then_some(proxy)
    }

    /// Whether one of them speaks TLS itself.
    pub(crate) fn speak_tls(&self) -> bool {
        let is_https = |proxy: &Proxy| proxy.kind == ProxyKind::Https;
        match &self.0 {
            Choice::Environment { https, http, .. } => https.iter().chain(http).any(is_https),
            Choice::One(proxy) => is_https(proxy),
        }
    }

    /// Adds the login of a proxy that forwards the request as it is. One that opens a tunnel gets it with CONNECT.
    pub fn authorize<B>(&self, request: &mut Request<B>) {
        if request.uri().scheme_str() != Some("http") {
            return;
        }
        let forwards = self.of(request.uri()).filter(|proxy| proxy.kind != ProxyKind::Socks5);
        if let Some(authorization) = forwards.and_then(Proxy::authorization) {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization);
        }
    }
}

/// An entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq)]
enum Direct {
    /// `*`.
    All,
    /// The addresses of a network.
    Network(IpNet),
    /// An address, on this port if one is given.
    Address(IpAddr, Option<u16>),
    /// What ends in this name, which begins with a dot, and with `itself` the name without the dot.
    Domain { suffix: String, itself: bool, port: Option<u16> },
}

/// The server that a request is for.
struct Target {
    host: String,
    address: Option<IpAddr>,
    port: u16,
}

impl Target {
    fn is_local(&self) -> bool {
        let is_metadata = |address: &IpAddr| METADATA.iter().any(|network| network.contains(address));
        self.host == "localhost" || self.address.is_some_and(|address| address.is_loopback() || is_metadata(&address))
    }
}

impl Direct {
    /// Parses one entry; one that makes no sense matches nothing, as in other clients.
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_ascii_lowercase();
        if entry == "*" {
            return Some(Self::All);
        }
        if let Ok(network) = entry.parse() {
            return Some(Self::Network(network));
        }
        if let Ok(address) = entry.trim_matches(['[', ']']).parse() {
            return Some(Self::Address(address, None));
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (entry.as_str(), None),
        };
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Some(Self::Address(address, port));
        }
        let name = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        let itself = !name.starts_with('.');
        let suffix = if itself { format!(".{name}") } else { name.to_owned() };
        (!name.is_empty()).then_some(Self::Domain { suffix, itself, port })
    }

    fn matches(&self, target: &Target) -> bool {
        let on = |port: Option<u16>| port.is_none_or(|port| port == target.port);
        match self {
            Self::All => true,
            Self::Network(network) => target.address.is_some_and(|address| network.contains(&address)),
            Self::Address(address, port) => target.address == Some(*address) && on(*port),
            Self::Domain { suffix, itself, port } => {
                let is = *itself && suffix.strip_prefix('.') == Some(&target.host);
                (is || target.host.ends_with(suffix.as_str())) && on(*port)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies> {
        Proxies::from_variables(|name| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned())
        })
    }

    /// The proxy that a request to the URL goes through, in the words of its Display.
    fn proxy(variables: &[(&str, &str)], url: &str) -> Option<String> {
        proxies(variables).unwrap().of_url(url).map(ToString::to_string)
    }

    #[test]
    fn the_scheme_decides_and_upper_case_comes_first() {
        let both = [("HTTPS_PROXY", "http://s:1"), ("http_proxy", "p:2")];
        assert_eq!(proxy(&both, "https://a.example/").as_deref(), Some("http://s:1"));
        assert_eq!(proxy(&both, "http://a.example/").as_deref(), Some("http://p:2"));
        assert_eq!(proxy(&both, "ftp://a.example/"), None);
        let cases = [("HTTPS_PROXY", "upper"), ("https_proxy", "lower"), ("no_proxy", "a.example")];
        assert_eq!(proxy(&cases, "https://b.example/").as_deref(), Some("http://upper:80"));
        assert_eq!(proxy(&cases, "https://a.example/"), None);
        let empty = [("HTTPS_PROXY", ""), ("https_proxy", "lower"), ("NO_PROXY", " "), ("no_proxy", "a.example")];
        assert_eq!(proxy(&empty, "https://b.example/").as_deref(), Some("http://lower:80"));
        assert_eq!(proxy(&empty, "https://a.example/"), None);
        assert_eq!(proxy(&[("ALL_PROXY", "all")], "https://a.example/"), None);
        assert_eq!(proxy(&[("HTTPS_PROXY", "p")], "http://a.example/"), None);
    }

    #[test]
    fn what_no_proxy_lists_is_asked_directly() {
        for (list, directly, by_proxy) in [
            (
                "shop.example",
                &["shop.example", "SHOP.example", "a.b.shop.example", "shop.example:8443"][..],
                &["eshop.example", "example"][..],
            ),
            (".shop.example", &["a.shop.example"], &["shop.example"]),
            ("*.shop.example", &["a.shop.example"], &["shop.example"]),
            ("shop.example:8443", &["shop.example:8443", "a.shop.example:8443"], &["shop.example", "shop.example:443"]),
            ("shop.example:443", &["shop.example"], &["shop.example:8443"]),
            (".shop.example:8443", &["a.shop.example:8443"], &["a.shop.example"]),
            ("10.0.0.7", &["10.0.0.7", "10.0.0.7:6443"], &["10.0.0.70"]),
            ("10.0.0.7:6443", &["10.0.0.7:6443"], &["10.0.0.7"]),
            ("10.0.0.0/8, 172.16.0.0/12", &["10.255.0.1", "172.31.0.1:6443"], &["11.0.0.1", "a10.0.0.1.example"]),
            ("10.1.2.3/8", &["10.255.0.1"], &["11.0.0.1"]),
            ("fd00::/8,[fe80::7]:6443", &["[fd12::1]", "[fe80::7]:6443"], &["[fe80::7]", "[2001:db8::1]"]),
            ("fe80::7", &["[fe80::7]:6443"], &["[fe80::8]"]),
            (" a.example , ,b.example,", &["a.example", "b.example"], &["c.example"]),
            ("a.example, *", &["c.example", "10.0.0.1"], &[]),
            ("a.example:x,:80,.", &[], &["a.example", "b.example:80"]),
            (
                "",
                &[
                    "localhost",
                    "LOCALHOST:6443",
                    "127.0.0.1",
                    "127.8.0.1:1",
                    "[::1]",
                    "169.254.169.254",
                    "169.254.170.2",
                    "[fd00:ec2::23]",
                ],
                &["localhost.example", "a.localhost", "[fd00::1]"],
            ),
        ] {
            let variables = [("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", list)];
            for host in directly {
                assert_eq!(proxy(&variables, &format!("https://{host}/x")), None, "{list}: {host}");
            }
            for host in by_proxy {
                assert_eq!(
                    proxy(&variables, &format!("https://{host}/x")).as_deref(),
                    Some("http://p:1"),
                    "{list}: {host}"
                );
            }
        }
    }

    #[test]
    fn the_url_of_a_proxy_is_read_with_its_password_which_is_never_told() {
        for (url, shown, whole, login) in [
            ("http://p.example:3128", "http://p.example:3128", "http://p.example:3128", None),
            ("p.example:3128", "http://p.example:3128", "http://p.example:3128", None),
            ("https://p.example/", "https://p.example:443", "https://p.example:443", None),
            ("HTTP://p.example/?a#b", "http://p.example:80", "http://p.example:80", None),
            ("socks5://[::1]", "socks5h://[::1]:1080", "socks5h://[::1]:1080", None),
            ("socks5h://10.0.0.1:9", "socks5h://10.0.0.1:9", "socks5h://10.0.0.1:9", None),
            ("http://u:p%40s@p:1", "http://p:1", "http://u:p%40s@p:1", Some(("u", "p@s"))),
            ("u@p:1", "http://p:1", "http://u@p:1", Some(("u", ""))),
        ] {
            let proxy = Proxy::parse(url).unwrap();
            assert_eq!((proxy.to_string().as_str(), proxy.url().as_str()), (shown, whole), "{url}");
            let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
            assert_eq!(proxy.login(), login, "{url}");
        }
        let login = Proxy::parse("http://Aladdin:open%20sesame@p").unwrap().authorization().unwrap();
        assert_eq!((login.to_str().unwrap(), login.is_sensitive()), ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", true));
        for url in
            ["ftp://u:secret@p", "http://", "http://u:secret@", "http://p:port", "http://p:70000", "p q", "socks4://p"]
        {
            let error = proxies(&[("https_proxy", url)]).map(drop).unwrap_err().to_string();
            assert!(error.starts_with("https_proxy is not the URL of a proxy: "), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_kubeconfigs_proxy_is_asked_for_everything() {
        let one = Proxies::one(Proxy::parse("http://p:1").unwrap());
        for url in ["https://a.example/", "http://localhost:8080/"] {
            assert_eq!(one.of_url(url).map(ToString::to_string).as_deref(), Some("http://p:1"));
        }
    }

    #[test]
    fn only_a_proxy_that_forwards_is_told_the_password_with_the_request() {
        let told = |variable, proxy, url: &str| {
            let mut request = Request::get(url).body(()).unwrap();
            proxies(&[(variable, proxy)]).unwrap().authorize(&mut request);
            request.headers().contains_key(header::PROXY_AUTHORIZATION)
        };
        assert!(told("HTTP_PROXY", "http://u:p@p", "http://a.example/"));
        assert!(!told("HTTP_PROXY", "http://p", "http://a.example/"));
        assert!(!told("HTTP_PROXY", "http://u:p@p", "http://localhost/"));
        assert!(!told("HTTP_PROXY", "socks5://u:p@p", "http://a.example/"));
        assert!(!told("HTTPS_PROXY", "http://u:p@p", "https://a.example/"));
    }
}
