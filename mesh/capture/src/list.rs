//! Parses lists as App Mesh's variables and annotations spell them: `8080,8443`, often empty.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use ipnet::IpNet;

/// The items of a comma-separated variable; spaces and empty items are skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

/// A TCP port, 1 to 65535.
pub type Port = NonZeroU16;

/// One item of such a list.
pub trait Item: Sized {
    /// Parses an item.
    ///
    /// # Errors
    /// The text is no such item; the message quotes it.
    fn read(text: &str) -> Result<Self, String>;
}

impl Item for Port {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is not a port (1 to 65535)"))
    }
}

impl Item for IpNet {
    fn read(text: &str) -> Result<Self, String> {
        text.parse::<IpAddr>()
            .map(IpNet::from)
            .or_else(|_| text.parse::<IpNet>().map(|net| net.trunc()))
            .map_err(|_| format!("{text:?} is not an IP address or CIDR block"))
    }
}

impl<T: Item> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(T::read).collect::<Result<_, _>>().map(List)
    }
}

impl<T: fmt::Display> fmt::Display for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, item) in self.0.iter().enumerate() {
            let comma = if n > 0 { ", " } else { "" };
            write!(f, "{comma}{item}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let read = |text: &str| {
            text.parse::<List<Port>>().map(|list| list.0.iter().map(|port| port.get()).collect::<Vec<_>>())
        };
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(read(" , "), Ok(vec![]));
        assert_eq!(read("8080"), Ok(vec![8080]));
        assert_eq!(read("8080, 8443,"), Ok(vec![8080, 8443]));
        for bad in ["0", "65536", "http", "80:90", "80-90"] {
            assert_eq!(read(&format!("22,{bad}")), Err(format!("{bad:?} is not a port (1 to 65535)")));
        }
    }

    #[test]
    fn addresses() {
        let read = |text: &str| {
            text.parse::<List<IpNet>>().map(|list| list.0.iter().map(IpNet::to_string).collect::<Vec<_>>())
        };
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(
            read("169.254.169.254,fd00:ec2::254"),
            Ok(vec!["169.254.169.254/32".into(), "fd00:ec2::254/128".into()])
        );
        assert_eq!(read("10.1.2.3/8"), Ok(vec!["10.0.0.0/8".into()]));
        assert_eq!(read("169.254.169"), Err("\"169.254.169\" is not an IP address or CIDR block".into()));
        assert!(read("10.0.0.0/33").is_err());
    }
}
