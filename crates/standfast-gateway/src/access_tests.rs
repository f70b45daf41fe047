use super::*;
use standfast_model::ReplicaId;
use std::path::Path;

fn instance() -> Instance {
    Instance { replica: ReplicaId { service: "orders".parse().unwrap(), slot: 2 }, attempt: 3 }
}

fn entry() -> Entry<'static> {
    Entry {
        at: Stamp::from_micros(1_772_357_400_125_000),
        took: Duration::from_micros(12_034),
        id: "0195-7",
        trace_id: None,
        client: IpAddr::from([10, 0, 0, 7]),
        method: "GET",
        host: "shop.test",
        target: "/orders?x=1",
        protocol: "HTTP/1.1",
        status: Some(200),
        reason: None,
        bytes_in: 0,
        bytes_out: 512,
        route: None,
        service: None,
        instance: None,
        attempts: 1,
        marks: Marks::default(),
        replay_of: None,
        injected: &[],
        user_agent: None,
        referer: None,
    }
}

fn line(format: AccessFormat, entry: &Entry<'_>) -> String {
    let mut out = Vec::new();
    match format {
        AccessFormat::Json => json(&mut out, entry),
        AccessFormat::Combined => combined(&mut out, entry),
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn a_line_of_json_holds_what_applies() {
    assert_eq!(
        line(AccessFormat::Json, &entry()),
        concat!(
            r#"{"at":"2026-03-01T09:30:00.125Z","id":"0195-7","client":"10.0.0.7","method":"GET","host":"shop.test","#,
            r#""target":"/orders?x=1","protocol":"HTTP/1.1","status":200,"took_ms":12.034,"bytes_in":0,"bytes_out":512,"#,
            r#""attempts":1}"#,
            "\n"
        )
    );
    let instance = instance();
    let fault = |id: &str| Injection { id: id.to_owned(), fault: "reset;for=1m".to_owned() };
    let faults = [fault("a"), fault("b")];
    let full = Entry {
        status: None,
        trace_id: Some("4bf9"),
        route: Some("*/orders"),
        service: Some("orders"),
        instance: Some(&instance),
        reason: Some("deadline"),
        marks: Marks {
            failed: true,
            retried: true,
            hedged: true,
            shed: true,
            slow: true,
            replayed: true,
            injected: true,
        },
        replay_of: Some("0195-6"),
        injected: &faults,
        user_agent: Some(b"curl"),
        referer: Some(b"http://a/"),
        ..entry()
    };
    let full: serde_json::Value = serde_json::from_str(&line(AccessFormat::Json, &full)).unwrap();
    assert_eq!(full.get("status"), None);
    assert_eq!((&full["instance"], &full["reason"]), (&"orders-2.3".into(), &"deadline".into()));
    assert_eq!(full["replay_of"], "0195-6");
    for mark in ["failed", "retried", "hedged", "shed", "slow", "replayed", "injected"] {
        assert_eq!(full[mark], true);
    }
    assert_eq!(full["faults"], "a,b");
    assert_eq!((&full["user_agent"], &full["trace_id"]), (&"curl".into(), &"4bf9".into()));
}

#[test]
fn a_combined_line_is_apaches() {
    let entry = Entry { referer: Some(b"http://a/"), user_agent: Some(b"curl/8 \"x\""), ..entry() };
    assert_eq!(
        line(AccessFormat::Combined, &entry),
        concat!(
            r#"10.0.0.7 - - [01/Mar/2026:09:30:00 +0000] "GET /orders?x=1 HTTP/1.1" 200 512 "http://a/" "curl/8 \"x\"""#,
            "\n"
        )
    );
    let left = Entry { status: None, bytes_out: 0, referer: None, user_agent: None, ..entry };
    assert!(line(AccessFormat::Combined, &left).ends_with("HTTP/1.1\" 499 - \"-\" \"-\"\n"));
}

#[test]
fn nothing_a_client_sends_begins_a_line_or_leaves_its_quotes() {
    let nasty = "a\"\\\r\n\u{1b}[2J\u{9b}\u{85}\u{2028}\u{202e}\u{7f}\0é";
    let bytes = [nasty.as_bytes(), b"\xff\xfe\n"].concat();
    let entry = Entry {
        id: nasty,
        method: nasty,
        host: nasty,
        target: nasty,
        user_agent: Some(&bytes),
        referer: Some(&bytes),
        route: Some(nasty),
        ..entry()
    };
    let json = line(AccessFormat::Json, &entry);
    let body = json.strip_suffix('\n').unwrap();
    assert!(body.chars().all(|c| !c.is_control() && !matches!(c, '\u{2028}' | '\u{202e}')), "{body}");
    let read: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&read["target"], &read["id"]), (&nasty.into(), &nasty.into()));
    assert_eq!(read["referer"], format!("{nasty}\u{fffd}\u{fffd}\n"));
    let combined = line(AccessFormat::Combined, &entry);
    let body = combined.strip_suffix('\n').unwrap();
    assert!(body.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{body}");
    let mut before = ' ';
    let mut quotes = 0;
    for c in body.replace("\\\\", "").chars() {
        quotes += u32::from(c == '"' && before != '\\');
        before = c;
    }
    assert_eq!(quotes, 6);
}

#[test]
fn a_line_is_bounded() {
    let long = "é\u{1}".repeat(100_000);
    let entry =
        Entry { method: &long, host: &long, target: &long, user_agent: Some(long.as_bytes()), ..entry() };
    let json = line(AccessFormat::Json, &entry);
    assert!(json.len() < 20_000 && json.contains('…'), "{}", json.len());
    let _still_json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(line(AccessFormat::Combined, &entry).len() < 20_000);
}

/// Takes so many bytes, then fails.
struct Full(Vec<u8>, usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = bytes.len().min(self.1 - self.0.len()).min(3);
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(&bytes[..room]);
        Ok(room)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_tears_no_line_that_follows() {
    let (mut disk, mut is_torn) = (Full(Vec::new(), 8), false);
    let (written, result) = write_lines(&mut disk, b"one\ntwo\nthree\n", &mut is_torn);
    assert_eq!((written, is_torn), (2, false));
    assert!(result.is_err());
    disk.1 = 10;
    let (written, result) = write_lines(&mut disk, b"four\n", &mut is_torn);
    assert!(written == 0 && result.is_err() && is_torn);
    assert!(write_lines(&mut disk, b"five\n", &mut is_torn).1.is_err() && is_torn);
    disk.1 = 100;
    assert!(matches!(write_lines(&mut disk, b"six\nseven\n", &mut is_torn), (2, Ok(()))));
    assert_eq!(disk.0, b"one\ntwo\nfo\nsix\nseven\n");
}

struct Rig {
    folder: tempfile::TempDir,
    clock: Clock,
    rng: Rng,
}

impl Rig {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock: Clock::system(), rng: Rng::seeded(1) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("logs/access.log")
    }

    fn start(&self, sample: u32) -> AccessLog {
        let settings = standfast_model::AccessLog { path: self.path(), format: AccessFormat::Json, sample };
        AccessLog::start(settings, self.clock).unwrap()
    }

    fn eventually(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        for _ in 0..1_000 {
            if is_so() {
                return;
            }
            self.clock.block(Duration::from_millis(10));
        }
        panic!("never came to be: {what}");
    }
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn lines_of_several_workers_are_written_whole_and_all_at_the_end() {
    let mut rig = Rig::new();
    let log = rig.start(1);
    let (mut a, mut b) = (log.writer(), log.writer());
    for _ in 0..500 {
        a.write(&entry(), &mut rig.rng);
        b.write(&entry(), &mut rig.rng);
    }
    drop((a, b));
    rig.eventually("all lines are written", || log.counts().written == 1_000);
    drop(log);
    let text = fs::read_to_string(rig.path()).unwrap();
    assert!(text.lines().count() == 1_000 && text.lines().all(|line| line.ends_with(r#""attempts":1}"#)));
    let mode = fs::metadata(rig.path()).unwrap().mode();
    assert_eq!(mode & 0o7, 0);
}

#[test]
fn what_was_handed_over_is_written_when_the_log_ends_and_later_lines_are_counted() {
    let mut rig = Rig::new();
    let log = rig.start(1);
    let mut writer = log.writer();
    writer.write(&entry(), &mut rig.rng);
    writer.flush();
    let shared = Arc::clone(&log.shared);
    drop(log);
    assert_eq!(lines(&rig.path()), 1);
    writer.write(&entry(), &mut rig.rng);
    writer.flush();
    assert_eq!(shared.dropped.load(Ordering::Relaxed), 1);
}

#[test]
fn a_request_never_waits_for_the_writer() {
    let mut rig = Rig::new();
    let mut log = rig.start(1);
    // Nobody reads this queue.
    let (sender, batches) = sync_channel(2);
    log.sender = sender;
    let mut writer = log.writer();
    for _ in 0..5 {
        writer.write(&entry(), &mut rig.rng);
        writer.flush();
    }
    assert_eq!(log.counts().dropped, 3);
    assert_eq!(batches.try_iter().map(|batch| batch.lines).sum::<u64>(), 2);
}

#[test]
fn a_file_that_was_renamed_or_removed_is_made_anew() {
    let mut rig = Rig::new();
    let log = rig.start(1);
    let mut writer = log.writer();
    let (path, old) = (rig.path(), rig.path().with_extension("log.1"));
    writer.write(&entry(), &mut rig.rng);
    writer.flush();
    rig.eventually("the first line is there", || lines(&path) == 1);
    fs::rename(&path, &old).unwrap();
    log.reopen();
    rig.eventually("the file is there again", || path.exists());
    writer.write(&entry(), &mut rig.rng);
    writer.flush();
    rig.eventually("the next line is in the new file", || lines(&path) == 1);
    assert_eq!(lines(&old), 1);
    // Nobody says that it is gone.
    fs::remove_file(&path).unwrap();
    rig.eventually("the file is there again", || path.exists());
}

#[test]
fn a_disk_that_takes_nothing_costs_lines_and_nothing_else() {
    let mut rig = Rig::new();
    let path = rig.path();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let log = rig.start(1);
    let mut writer = log.writer();
    writer.write(&entry(), &mut rig.rng);
    writer.flush();
    rig.eventually("the line is lost", || log.counts().failed == 1);
    fs::remove_file(&path).unwrap();
    log.reopen();
    rig.eventually("a file is there", || path.is_file());
    writer.write(&entry(), &mut rig.rng);
    writer.flush();
    rig.eventually("lines are written again", || lines(&path) == 1);
    let counts = log.counts();
    assert_eq!((counts.written, counts.dropped), (1, 0));
    // Nor does a folder in the place of the file.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    log.reopen();
    let mut rng = Rng::seeded(2);
    rig.eventually("lines are lost again", || {
        writer.write(&entry(), &mut rng);
        writer.flush();
        log.counts().failed > counts.failed
    });
}

#[test]
fn marked_requests_are_written_whatever_the_sample() {
    let mut rig = Rig::new();
    let log = rig.start(1_000_000);
    let mut writer = log.writer();
    for _ in 0..100 {
        writer.write(&entry(), &mut rig.rng);
    }
    writer.write(&Entry { marks: Marks { slow: true, ..Marks::default() }, ..entry() }, &mut rig.rng);
    drop(writer);
    drop(log);
    assert_eq!(lines(&rig.path()), 1);
}
