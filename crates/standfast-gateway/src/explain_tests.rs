use super::*;
use standfast_model::ReplicaId;

fn attempt(slot: u32, started_after_ms: f64, took_ms: f64, end: AttemptEnd) -> Attempt {
    let service: ServiceName = "orders".parse().unwrap();
    Attempt {
        instance: Instance { replica: ReplicaId { service, slot }, attempt: 1 },
        address: SocketAddr::from(([10, 1, 0, 5], 8080)),
        zone: "a".parse().unwrap(),
        started_after_ms,
        took_ms,
        end,
        score: 3.08,
        in_flight: slot,
        is_hedge: false,
        status: None,
    }
}

fn record(id: &str, at: u64) -> Record {
    Record {
        id: id.into(),
        client_request_id: None,
        trace_id: None,
        at: Stamp::from_micros(at),
        took_ms: 61.0,
        marks: Marks::default(),
        route: Some("shop.test/orders".into()),
        service: Some("orders".parse().unwrap()),
        method: "POST".into(),
        path: "/orders".into(),
        client: IpAddr::from([10, 0, 0, 7]),
        status: Some(200),
        reason: None,
        attempts: Vec::new(),
        attempts_left_out: 0,
        replay_of: None,
        injected: Vec::new(),
        budget_left: 4.2,
        deadline_left_ms: 9_939.0,
        waited_ms: 0.0,
        admission_limit: Some(24),
        bytes_in: 10,
        bytes_out: 2_048,
    }
}

#[test]
fn a_record_tells_its_story() {
    let mut told = record("r-1", 0);
    told.client_request_id = Some("job\u{1b}7".into());
    told.attempts = vec![
        attempt(0, 0.2, 12.0, AttemptEnd::Broken),
        Attempt { status: Some(503), ..attempt(0, 13.0, 4.0, AttemptEnd::Dropped) },
        attempt(1, 17.0, 44.0, AttemptEnd::Beaten),
        Attempt { is_hedge: true, status: Some(200), ..attempt(2, 40.0, 20.6, AttemptEnd::Answered) },
    ];
    assert_eq!(
        told.sentence(),
        "POST /orders from 10.0.0.7 at 1970-01-01T00:00:00.000Z, by route `shop.test/orders` to `orders`: answered with 200 \
         after 61 ms.\n \
         1. After 0.2 ms sent to orders-0.1 (10.1.0.5:8080, zone a; score 3.1, idle). It broke the connection after 12 ms; \
         what was sent may have been carried out.\n \
         2. After 13 ms sent again to orders-0.1 (10.1.0.5:8080, zone a; score 3.1, idle). It answered 503 after 4.0 ms; \
         that answer was dropped to try again.\n \
         3. After 17 ms then sent to orders-1.1 (10.1.0.5:8080, zone a; score 3.1, 1 in flight). It was let go after 44 ms: \
         another replica was faster.\n \
         4. After 40 ms also sent, because the first was slow, to orders-2.1 (10.1.0.5:8080, zone a; score 3.1, 2 in flight). \
         It answered 200 after 21 ms.\n\
         The answer 200 is that of orders-2.1.\n\
         Waited 0.0 ms; 9939 ms of its time left; the retry budget would pay 4 more; 10 bytes in, 2048 out; at most 24 at a \
         time. Request r-1, its client's job\u{fffd}7."
    );
}

#[test]
fn each_end_has_its_words() {
    let ends = [
        (AttemptEnd::Unsent, "nothing was sent"),
        (AttemptEnd::TooSlow, "longer than usual"),
        (AttemptEnd::Overdue, "time was over"),
        (AttemptEnd::Abandoned, "the client left"),
    ];
    for (end, words) in ends {
        assert!(attempt(0, 1.0, 2.0, end).sentence(None).contains(words), "{end:?}");
    }
    for end in [
        AttemptEnd::Answered,
        AttemptEnd::Dropped,
        AttemptEnd::Unsent,
        AttemptEnd::Broken,
        AttemptEnd::TooSlow,
        AttemptEnd::Overdue,
        AttemptEnd::Beaten,
        AttemptEnd::Abandoned,
    ] {
        assert_eq!(serde_json::to_value(end).unwrap(), end.word());
    }
    let verdict = |status, reason: Option<&'static str>, attempts, shed| {
        let marks = Marks { shed, ..Marks::default() };
        Record { status, reason: reason.map(Cow::Borrowed), attempts, marks, ..record("r", 1) }.sentence()
    };
    let broken = || vec![attempt(0, 0.1, 20_000.0, AttemptEnd::Broken)];
    for (told, words) in [
        (verdict(None, None, broken(), false), "its client left after 61 ms.\n"),
        (verdict(Some(301), None, Vec::new(), false), "301 was made without asking a service"),
        (verdict(Some(400), Some("bad-request"), Vec::new(), false), "more than one way"),
        (verdict(Some(404), Some("no-route"), Vec::new(), false), "no route is for"),
        (verdict(Some(503), Some("no-replica-ready"), Vec::new(), false), "no replica was ready"),
        (verdict(Some(503), Some("no-replica-ready"), broken(), false), "no other replica was ready"),
        (verdict(Some(503), Some("too-many-held"), Vec::new(), false), "waiting already"),
        (
            verdict(Some(504), Some("deadline"), broken(), false),
            "answered 504 itself (deadline): the request's time",
        ),
        (verdict(Some(502), Some("replica-broke-off"), broken(), false), "may have been carried out, so"),
        (verdict(Some(501), Some("connect-not-served"), Vec::new(), false), "CONNECT is not"),
        (
            verdict(Some(503), Some("overloaded"), Vec::new(), true),
            "(overloaded): the gateway did not let it in",
        ),
        (verdict(Some(503), Some("odd"), broken(), false), "after 20.0 s"),
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let nothing = Record { route: None, ..record("r", 1) };
    assert!(nothing.sentence().contains("000Z, for `orders`:"));
    assert!(Record { service: None, ..nothing.clone() }.sentence().contains("000Z: answered"));
    assert!(Record { service: None, ..record("r", 1) }.sentence().contains("by route `shop.test/orders`:"));
}

#[test]
fn the_oldest_records_make_way() {
    let records = Records::with_limits(3, usize::MAX);
    (0..5).for_each(|number| records.write(record(&format!("r-{number}"), number)));
    let ids = |limit| {
        recent([&records], limit, &Filter::default()).into_iter().map(|found| found.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(9), ["r-4", "r-3", "r-2"]);
    assert_eq!(ids(1), ["r-4"]);
    let one = record("r-0", 1).bytes();
    let few = Records::with_limits(usize::MAX, one * 2);
    (0..5).for_each(|number| few.write(record(&format!("r-{number}"), number)));
    let ring = few.ring();
    assert_eq!((ring.records.len(), ring.bytes), (2, one * 2));
    drop(ring);
    let none = Records::with_limits(0, usize::MAX);
    none.write(record("r", 1));
    assert!(find([&none], "r").is_none());
}

#[test]
fn a_record_is_bounded_whatever_a_client_sends() {
    let records = Records::default();
    let mut large = record("r", 1);
    large.path = "é".repeat(10_000);
    large.method = "M".repeat(10_000);
    large.reason = Some(Cow::Owned("r".repeat(10_000)));
    large.attempts = (0..100).map(|slot| attempt(slot, 0.0, 0.0, AttemptEnd::Unsent)).collect();
    records.write(large);
    let kept = find([&records], "r").unwrap();
    assert!(kept.path.len() <= TEXT_BYTES_MAX && kept.path.ends_with("é…"), "{}", kept.path);
    assert_eq!((kept.attempts.len(), kept.attempts_left_out), (ATTEMPTS_MAX, 84));
    assert_eq!(kept.attempts.last().unwrap().instance.replica.slot, 99);
    assert!(kept.bytes() < 8 << 10, "{}", kept.bytes());
    let told = kept.sentence();
    assert!(told.contains("\n   … 84 more attempts …\n100. After"), "{told}");
}

#[test]
fn records_are_found_by_any_id_and_the_gateways_own_goes_first() {
    let (a, b) = (Records::default(), Records::default());
    a.write(Record { trace_id: Some("t".into()), ..record("r-1", 1) });
    b.write(Record { client_request_id: Some("r-1".into()), ..record("r-2", 2) });
    b.write(Record { client_request_id: Some("mine".into()), ..record("r-3", 3) });
    let id = |id: &str| find([&a, &b], id).map(|found| found.id);
    assert_eq!(id("r-1").as_deref(), Some("r-1"));
    assert_eq!(id("t").as_deref(), Some("r-1"));
    assert_eq!(id("mine").as_deref(), Some("r-3"));
    assert_eq!(id("else"), None);
    let all = recent([&a, &b], 2, &Filter::default());
    assert_eq!(all.iter().map(|found| found.id.as_str()).collect::<Vec<_>>(), ["r-3", "r-2"]);
}

#[test]
fn filters_fit_on_all_that_they_name() {
    let mut found = record("r", 1);
    found.attempts = vec![attempt(3, 0.0, 1.0, AttemptEnd::Unsent)];
    (found.status, found.reason) = (Some(503), Some("deadline".into()));
    let instance = found.attempts[0].instance.clone();
    let mut filter = Filter {
        service: found.service.clone(),
        route: found.route.clone(),
        status: Some(503),
        reason: Some("deadline".into()),
        instance: Some(instance),
        is_marked: false,
    };
    assert!(filter.fits(&found));
    filter.is_marked = true;
    assert!(!filter.fits(&found));
    found.marks.slow = true;
    assert!(filter.fits(&found));
    for other in [
        Filter { service: Some("x".parse().unwrap()), ..Filter::default() },
        Filter { route: Some("x".into()), ..Filter::default() },
        Filter { status: Some(200), ..Filter::default() },
        Filter { reason: Some("x".into()), ..Filter::default() },
        Filter { instance: Some(attempt(4, 0.0, 0.0, AttemptEnd::Unsent).instance), ..Filter::default() },
    ] {
        assert!(!other.fits(&found), "{other:?}");
    }
}

#[test]
fn records_survive_json() {
    let mut sent = record("r", 1);
    sent.attempts = vec![Attempt { status: Some(200), ..attempt(0, 0.5, 1.5, AttemptEnd::TooSlow) }];
    sent.reason = Some("deadline".into());
    let text = serde_json::to_string(&sent).unwrap();
    assert!(text.contains(r#""end":"too-slow""#) && !text.contains("trace_id"), "{text}");
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), sent);
    assert!(serde_json::from_str::<Filter>(r#"{"statsu": 1}"#).is_err());
}

#[test]
fn marked_requests_are_always_taken_and_others_by_chance() {
    let mut rng = Rng::seeded(2);
    let marked = [
        Marks { failed: true, ..Marks::default() },
        Marks { retried: true, ..Marks::default() },
        Marks { hedged: true, ..Marks::default() },
        Marks { shed: true, ..Marks::default() },
        Marks { slow: true, ..Marks::default() },
        Marks { replayed: true, ..Marks::default() },
        Marks { injected: true, ..Marks::default() },
    ];
    for marks in marked {
        assert!(Sample::one_in(0).takes(marks, &mut rng));
    }
    let mut taken = |one_in| {
        let sample = Sample::one_in(one_in);
        (0..10_000).filter(|_| sample.takes(Marks::default(), &mut rng)).count()
    };
    assert_eq!((taken(0), taken(1)), (0, 10_000));
    assert!((900..1_100).contains(&taken(10)));
}
