//! Which address a client comes from, when trusted proxies stand in between.

use std::net::IpAddr;

use http::HeaderMap;

use crate::config::Network;

/// The client's address: the peer's, unless the peer is a trusted proxy; then the last address of
/// `x-forwarded-for` that is not a trusted proxy itself.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut address = peer.to_canonical();
    if trusted.is_empty() {
        return address;
    }
    let values: Vec<&str> =
        headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    for hop in values.iter().rev().flat_map(|value| value.rsplit(',')) {
        if !is_trusted(address) {
            break;
        }
        let Ok(next) = hop.trim().parse::<IpAddr>() else { break };
        address = next.to_canonical();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_addresses_count_only_behind_trusted_proxies() {
        let trusted = ["10.0.0.0/8", "::1/128"].map(|text| Network::try_from(text.to_owned()).unwrap());
        for (peer, forwarded, trusted, expected) in [
            ("192.0.2.1", None, &trusted[..], "192.0.2.1"),
            ("192.0.2.1", Some("198.51.100.1"), &trusted, "192.0.2.1"),
            ("10.0.0.1", Some("198.51.100.1"), &trusted, "198.51.100.1"),
            ("10.0.0.1", Some("198.51.100.1"), &[], "10.0.0.1"),
            ("10.0.0.1", Some("203.0.113.9, 198.51.100.1, 10.0.0.2"), &trusted, "198.51.100.1"),
            ("10.0.0.1", Some("10.0.0.3, 10.0.0.2"), &trusted, "10.0.0.3"),
            ("10.0.0.1", Some("no address"), &trusted, "10.0.0.1"),
            ("::ffff:10.0.0.1", Some("198.51.100.1"), &trusted, "198.51.100.1"),
        ] {
            let headers = forwarded
                .map(|value| (http::HeaderName::from_static("x-forwarded-for"), value.parse().unwrap()))
                .into_iter()
                .collect();
            let found = client_address(peer.parse().unwrap(), &headers, trusted);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
        }
    }
}
