//! The address of a client, also where CloudFront stands in front of API Gateway.

use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use lambda_http::{Request, RequestExt, http::HeaderMap, request::RequestContext};

use crate::{
    challenge::ClientAddress,
    config::{self, Env},
};

/// The proxy between clients and API Gateway, if there is one. No `Debug`.
pub struct Edge {
    /// The text by which CloudFront proves that it added the headers. `None` without CloudFront.
    secret: Option<Box<str>>,
}

impl Edge {
    /// Reads `EDGE_SECRET`: at least 32 bytes, or unset if nothing stands in front.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        const NAME: &str = "EDGE_SECRET";
        match env.text(NAME) {
            Some(secret) if secret.len() < 32 => {
                Err(config::Error::invalid(NAME, "must be at least 32 bytes"))
            }
            secret => Ok(Self {
                secret: secret.map(Into::into),
            }),
        }
    }

    /// The client's address as CloudFront saw it, if the request proves that it came that way, else
    /// as API Gateway saw it. Never another header: clients write those.
    pub fn client_address(&self, request: &Request) -> ClientAddress {
        let viewer = self.viewer_address(request.headers());
        ClientAddress::parse(viewer.or_else(|| match request.request_context_ref() {
            Some(RequestContext::ApiGatewayV1(context)) => context.identity.source_ip.as_deref(),
            Some(RequestContext::ApiGatewayV2(context)) => context.http.source_ip.as_deref(),
            _ => None,
        }))
    }

    fn viewer_address<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let expected = self.secret.as_ref()?;
        let secret = headers.get("x-edge-secret")?;
        verify_slices_are_equal(secret.as_bytes(), expected.as_bytes()).ok()?;
        address_of(headers.get("cloudfront-viewer-address")?.to_str().ok()?)
    }
}

/// The address in `198.51.100.10:46532` or `2001:db8::1:46532` (Amazon CloudFront, "Add CloudFront
/// request headers"). Brackets around IPv6 are accepted.
fn address_of(viewer: &str) -> Option<&str> {
    let (address, port) = viewer.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let address = address
        .strip_prefix('[')
        .and_then(|address| address.strip_suffix(']'))
        .unwrap_or(address);
    address.parse::<IpAddr>().ok().map(|_| address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_behind_the_last_colon() {
        for (viewer, address) in [
            ("198.51.100.10:46532", Some("198.51.100.10")),
            ("2001:db8::1:443", Some("2001:db8::1")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            (
                "2001:db8:85a3:0:0:8a2e:370:7334:65535",
                Some("2001:db8:85a3:0:0:8a2e:370:7334"),
            ),
            ("198.51.100.10", None),
            ("198.51.100.10:", None),
            ("198.51.100.10:65536", None),
            ("198.51.100.10:443, 192.0.2.1:443", None),
            ("[2001:db8::1:443", None),
            ("example.com:443", None),
            ("", None),
        ] {
            assert_eq!(address_of(viewer), address, "{viewer}");
        }
    }

    #[test]
    fn a_short_secret_is_refused_and_not_echoed() {
        let env = Env::from([("EDGE_SECRET", "hunter2")]);
        let error = Edge::from_env(&env).err().unwrap().to_string();
        assert_eq!(error, "EDGE_SECRET must be at least 32 bytes");
    }
}
