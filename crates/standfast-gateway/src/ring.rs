//! The same key to the same replica, as long as that one has room. Pure.
//!
//! Each replica has a score for each key, and the highest takes it: rendezvous hashing (Thaler and Ravishankar 1998), weighted as
//! Resch and Schindelhauer do it (2005). Who comes takes about one in n keys from each, who goes gives his keys to all others, and
//! nobody else's move. A replica that has more than [`LOAD_MAX`] times its share in flight is passed over for the next in the
//! key's own order ("Consistent Hashing with Bounded Loads", Mirrokni, Thorup and Zadimoghaddam 2016), so that one hot key
//! overloads nobody. Each choice looks at all replicas, two microseconds for a hundred of them, without a table that
//! would have to be built anew at each change.

/// How many times its share of what is in flight a replica may have.
const LOAD_MAX: f64 = 1.25;
/// Below so many in flight there is always room: of two requests at a time one would else always go astray.
const ROOM_MIN: u32 = 4;

/// What is known of one replica.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    /// Its place in the pool.
    pub(crate) index: usize,
    /// A hash of what it is, not of where it stands in a list: [`stable_hash`] of its instance's name.
    pub(crate) identity: u64,
    /// Above 0.
    pub(crate) weight: f64,
    pub(crate) in_flight: u32,
}

/// The `index` of the replica for a key; `None` when there is none.
pub(crate) fn pick(key: u64, nodes: impl Iterator<Item = Node> + Clone) -> Option<usize> {
    let (in_flight, weight) = nodes
        .clone()
        .fold((1.0, 0.0), |(sum, weight), node| (sum + f64::from(node.in_flight), weight + node.weight));
    let has_room = |node: &Node| {
        node.in_flight < ROOM_MIN
            || f64::from(node.in_flight) + 1.0 <= (in_flight * LOAD_MAX * node.weight / weight).ceil()
    };
    nodes
        .filter(has_room)
        .map(|node| (node.index, score(key, &node)))
        .max_by(|(_, one), (_, other)| one.total_cmp(other))
        .map(|(index, _)| index)
}

/// Weight over an exponential variate: the chance of being the highest is in proportion to the weight.
fn score(key: u64, node: &Node) -> f64 {
    let bits = mix(key ^ mix(node.identity)) >> 11;
    let unit = (bits as f64 + 0.5) / (1_u64 << 53) as f64;
    -node.weight / unit.ln()
}

/// A hash that is the same in every process, on every machine and in every version: keys must not move when a gateway is
/// replaced. FNV-1a, then [`mix`]. Never change it.
pub(crate) fn stable_hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(fnv)
}

/// The finalizer of `SplitMix64` (Stafford's variant 13): every bit of the outcome depends on every bit. Never change it.
pub(crate) const fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(count: usize) -> Vec<Node> {
        (0..count)
            .map(|index| Node {
                index,
                identity: stable_hash(format!("cart-{index}").as_bytes()),
                weight: 1.0,
                in_flight: 0,
            })
            .collect()
    }

    fn owners(nodes: &[Node]) -> Vec<usize> {
        (0..10_000_u64)
            .map(|key| pick(stable_hash(&key.to_le_bytes()), nodes.iter().copied()).unwrap())
            .collect()
    }

    fn moved(one: &[usize], other: &[usize]) -> usize {
        one.iter().zip(other).filter(|(a, b)| a != b).count()
    }

    #[test]
    fn hashes_stay_what_they_are() {
        assert_eq!(stable_hash(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(stable_hash(b"cart-1"), 0x703c_798e_8607_272b);
    }

    #[test]
    fn keys_are_shared_evenly_or_by_weight() {
        let mut nodes = pool(5);
        let count = |nodes: &[Node], index| owners(nodes).iter().filter(|owner| **owner == index).count();
        assert!((0..5).all(|index| (1_850..2_150).contains(&count(&nodes, index))));
        nodes[2].weight = 2.0;
        assert!((3_150..3_500).contains(&count(&nodes, 2)));
    }

    #[test]
    fn who_comes_or_goes_moves_only_his_own_keys() {
        let (ten, eleven) = (owners(&pool(10)), owners(&pool(11)));
        let came = moved(&ten, &eleven);
        assert!((800..1_020).contains(&came), "1 in 11: {came}");
        let mut nodes = pool(10);
        nodes.remove(3);
        nodes.reverse();
        let without = owners(&nodes);
        let had = ten.iter().filter(|owner| **owner == 3).count();
        assert_eq!(moved(&ten, &without), had, "whatever their order");
    }

    #[test]
    fn a_hot_key_spills_over_to_the_same_others_and_nobody_has_more_than_his_share() {
        let mut nodes = pool(4);
        let mut order = Vec::new();
        for _ in 0..1_000 {
            let chosen = pick(99, nodes.iter().copied()).unwrap();
            nodes[chosen].in_flight += 1;
            if !order.contains(&chosen) {
                order.push(chosen);
            }
        }
        assert!(nodes.iter().all(|node| node.in_flight <= 313), "{nodes:?}");
        nodes.iter_mut().for_each(|node| node.in_flight = 0);
        assert_eq!(pick(99, nodes.iter().copied()), Some(order[0]));
        nodes[order[0]].in_flight = 20;
        assert_eq!(pick(99, nodes.iter().copied()), Some(order[1]));
        assert_eq!(pick(99, std::iter::empty()), None);
    }

    #[test]
    fn few_at_a_time_never_leave_their_replica() {
        let mut nodes = pool(3);
        let home = pick(5, nodes.iter().copied()).unwrap();
        nodes[home].in_flight = ROOM_MIN - 1;
        assert_eq!(pick(5, nodes.iter().copied()), Some(home));
    }
}
