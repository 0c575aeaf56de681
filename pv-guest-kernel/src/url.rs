//! The part of a URL that fetching a page needs.

/// `http://host:port/path`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Url<'a> {
    /// Name or address.
    pub host: &'a str,
    /// 80 where none is given.
    pub port: u16,
    /// With its leading `/`, and the query if there is one.
    pub path: &'a str,
}

/// Why a text is no URL that can be fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UrlError {
    /// It does not start with `http://`.
    Scheme,
    /// There is no host.
    Host,
    /// The port is no number from 1 to 65535.
    Port,
}

impl core::fmt::Display for UrlError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Scheme => "a URL starts with http://",
            Self::Host => "the URL names no host",
            Self::Port => "the URL's port is not a number from 1 to 65535",
        })
    }
}

impl<'a> Url<'a> {
    /// Takes a URL apart. A fragment (`#…`) is left out: it is for the reader, not for the server.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn parse(text: &'a str) -> Result<Self, UrlError> {
        let rest = text.strip_prefix("http://").ok_or(UrlError::Scheme)?;
        let rest = rest.split('#').next().unwrap_or(rest);
        let slash = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(slash);
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| UrlError::Port)?),
            None => (authority, 80),
        };
        if host.is_empty() {
            return Err(UrlError::Host);
        }
        if port == 0 {
            return Err(UrlError::Port);
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { host, port, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_a_port_and_a_path() {
        let url = Url::parse("http://10.0.2.2:8080/a/b?c=d#e").expect("a good URL");
        assert_eq!((url.host, url.port, url.path), ("10.0.2.2", 8080, "/a/b?c=d"));
        let url = Url::parse("http://example.org").expect("a good URL");
        assert_eq!((url.host, url.port, url.path), ("example.org", 80, "/"));
    }

    #[test]
    fn what_cannot_be_fetched_is_refused() {
        assert_eq!(Url::parse("ftp://x/"), Err(UrlError::Scheme));
        assert_eq!(Url::parse("http:///x"), Err(UrlError::Host));
        assert_eq!(Url::parse("http://x:0/"), Err(UrlError::Port));
        assert_eq!(Url::parse("http://x:y/"), Err(UrlError::Port));
    }
}
