//! The PROXY protocol, versions 1 and 2: who the client is, told by a load balancer before us
//! (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V1_BYTES_MAX: usize = 107;
/// Addresses and extensions of version 2; nobody sends more.
const V2_BYTES_MAX: usize = 4 << 10;

/// What a connection begins with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// More bytes are needed.
    Partial,
    /// So many bytes; the client's address, unless the balancer speaks for itself (a health check).
    Complete(usize, Option<SocketAddr>),
    /// No header, or one that is not legal.
    Bad,
}

/// Reads the header at the start of `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Header {
    let common = V2_SIGNATURE.len().min(bytes.len());
    if bytes[..common] == V2_SIGNATURE[..common] {
        return if bytes.len() < 16 { Header::Partial } else { read_v2(bytes) };
    }
    let common = bytes.len().min(6);
    if bytes[..common] != b"PROXY "[..common] {
        return Header::Bad;
    }
    match bytes.iter().take(V1_BYTES_MAX).position(|byte| *byte == b'\n') {
        Some(end) => read_v1(&bytes[..=end]),
        None if bytes.len() < V1_BYTES_MAX => Header::Partial,
        None => Header::Bad,
    }
}

fn read_v1(line: &[u8]) -> Header {
    let Some(text) = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok()) else {
        return Header::Bad;
    };
    let words: Vec<&str> = text.split(' ').collect();
    if words.get(1) == Some(&"UNKNOWN") {
        return Header::Complete(line.len(), None);
    }
    let &[_, family @ ("TCP4" | "TCP6"), source, _destination, port, _to] = words.as_slice() else {
        return Header::Bad;
    };
    match (source.parse::<IpAddr>(), port.parse()) {
        (Ok(address), Ok(port)) if address.is_ipv4() == (family == "TCP4") => {
            Header::Complete(line.len(), Some(SocketAddr::new(address, port)))
        }
        _ => Header::Bad,
    }
}

fn read_v2(bytes: &[u8]) -> Header {
    let (command, family) = (bytes[12], bytes[13]);
    let length = 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if command >> 4 != 2 || command & 0xf > 1 || length > V2_BYTES_MAX {
        return Header::Bad;
    }
    let Some(addresses) = bytes.get(16..length) else { return Header::Partial };
    if command & 0xf == 0 {
        return Header::Complete(length, None); // LOCAL
    }
    let port = |at: usize| addresses.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
    let source = match family >> 4 {
        1 => addresses.first_chunk::<4>().map(|ip| IpAddr::V4(Ipv4Addr::from(*ip))).zip(port(8)),
        2 => addresses.first_chunk::<16>().map(|ip| IpAddr::V6(Ipv6Addr::from(*ip))).zip(port(32)),
        _ => return Header::Complete(length, None),
    };
    match source {
        Some((address, port)) => Header::Complete(length, Some(SocketAddr::new(address, port))),
        None => Header::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn version_1_is_a_line() {
        let line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET";
        assert_eq!(read(line), Header::Complete(line.len() - 3, address("192.168.0.1:56324")));
        for cut in 0..line.len() - 4 {
            assert_eq!(read(&line[..cut]), Header::Partial, "{cut}");
        }
        assert_eq!(read(b"PROXY UNKNOWN\r\n"), Header::Complete(15, None));
        let six = b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n";
        assert_eq!(read(six), Header::Complete(six.len(), address("[2001:db8::1]:1")));
        for bad in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 99999 1\r\n",
            "PROXY UNKNOWN\n",
        ] {
            assert_eq!(read(bad.as_bytes()), Header::Bad, "{bad}");
        }
        assert_eq!(read(&[b"PROXY ".as_slice(), &[b'x'; 200]].concat()), Header::Bad);
    }

    #[test]
    fn version_2_is_binary() {
        let mut bytes = [V2_SIGNATURE, &[0x21, 0x11, 0, 15]].concat();
        bytes.extend_from_slice(&[10, 0, 0, 7, 10, 0, 0, 8, 0x1f, 0x90, 0, 80, 1, 2, 3]);
        let length = bytes.len();
        for cut in 0..length {
            assert_eq!(read(&bytes[..cut]), Header::Partial, "{cut}");
        }
        bytes.extend_from_slice(b"GET");
        assert_eq!(read(&bytes), Header::Complete(length, address("10.0.0.7:8080")));
        bytes[12] = 0x20;
        assert_eq!(read(&bytes), Header::Complete(length, None));
        bytes[12] = 0x31;
        assert_eq!(read(&bytes), Header::Bad);
        let short = [V2_SIGNATURE, &[0x21, 0x21, 0, 4, 1, 2, 3, 4]].concat();
        assert_eq!(read(&short), Header::Bad);
    }
}
