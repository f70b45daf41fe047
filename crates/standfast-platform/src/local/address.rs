//! Where replicas listen: each on a loopback address of its zone's subnet, and on a port that nobody else has.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// Ports are given out from a range of this size, in turn, so that one is not used again soon: connections to a dead
/// replica meet a refusal, not a stranger.
const PORTS: u16 = 10_000;
/// The usual first port. The range ends below the machine's ephemeral ports, or outgoing connections would take ours.
const FIRST_PORT: u16 = 20_000;
/// Zones that have a subnet each; more are refused.
pub(crate) const ZONES_MAX: usize = 254;

/// Gives out ports.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    first: u16,
    next: u16,
}

impl Ports {
    /// Ports of this machine's range, beginning at `start` places into it.
    pub(crate) fn starting_at(start: u64) -> Self {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let ephemeral =
            range.split_ascii_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768);
        let first = first_below(ephemeral);
        Self { first, next: u16::try_from(start % u64::from(PORTS)).unwrap_or_default() }
    }

    /// How far it has come, to go on from there later.
    pub(crate) fn cursor(&self) -> u64 {
        u64::from(self.next)
    }

    /// The next port on which nobody listens at any of this machine's addresses and that is not in `taken`.
    pub(crate) fn next_free(&mut self, taken: &BTreeSet<u16>) -> Option<u16> {
        for _ in 0..PORTS {
            let port = self.first + self.next;
            self.next = (self.next + 1) % PORTS;
            if !taken.contains(&port) && is_free(port) {
                return Some(port);
            }
        }
        None
    }
}

/// The range's first port, for the machine's first ephemeral one.
fn first_below(ephemeral: u16) -> u16 {
    FIRST_PORT.min(ephemeral.saturating_sub(PORTS)).max(1_024)
}

/// Whether a service could listen on the port at any address. Without `SO_REUSEADDR`, so that connections that still
/// wind down count too.
fn is_free(port: u16) -> bool {
    let v4 = try_bind(Domain::IPV4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    let v6 = try_bind(Domain::IPV6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    // A machine without IPv6 says so by another error than "in use".
    v4.is_ok() && !v6.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

fn try_bind(domain: Domain, address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(domain, Type::STREAM, None)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

/// `127.A.Z.N`: A from the stack's fingerprint, Z the zone's number from 1, N the replica's within its zone.
pub(crate) fn loopback(fingerprint: &str, zone_index: usize, number: u8) -> IpAddr {
    let hash = fingerprint.bytes().fold(0_u8, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte));
    let zone = u8::try_from(zone_index + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, 64 + hash % 128, zone, number).into()
}

/// The lowest number from 1 that no replica of the zone has; the last one is shared when all are taken (ports still
/// differ).
pub(crate) fn lowest_free(taken: &BTreeSet<u8>) -> u8 {
    (1..=254).find(|number| !taken.contains(number)).unwrap_or(254)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_stay_below_the_ephemeral_ones_and_come_in_turn() {
        assert_eq!((first_below(32_768), first_below(15_000), first_below(1_024)), (20_000, 5_000, 1_024));
        let mut ports = Ports::starting_at(77);
        let (first, second) =
            (ports.next_free(&BTreeSet::new()).unwrap(), ports.next_free(&BTreeSet::new()).unwrap());
        assert_ne!(first, second);
        assert!((20_000..30_000).contains(&first), "{first}");
    }

    #[test]
    fn a_port_in_use_on_any_address_is_passed_over() {
        let mut ports = Ports::starting_at(4_000);
        let taken = ports.clone().next_free(&BTreeSet::new()).unwrap();
        let _listener = std::net::TcpListener::bind(("127.99.0.1", taken)).unwrap();
        assert_ne!(ports.next_free(&BTreeSet::new()).unwrap(), taken);
    }

    #[test]
    fn addresses_name_stack_zone_and_replica() {
        let IpAddr::V4(address) = loopback("00ff", 2, 7) else { panic!("loopback is IPv4") };
        let [first, stack, zone, replica] = address.octets();
        assert_eq!((first, zone, replica), (127, 3, 7));
        assert!((64..=191).contains(&stack));
        assert_eq!(lowest_free(&BTreeSet::from([1, 2, 4])), 3);
    }
}
