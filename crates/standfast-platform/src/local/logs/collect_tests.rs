use std::io::Write;

use super::*;

fn limits(file_bytes_max: u64) -> LogLimits {
    LogLimits { file_bytes_max, files_max: 100, ..LogLimits::default() }
}

fn all_lines(logs: &Logs) -> Vec<String> {
    let source = LogSource::Service("orders".parse().unwrap());
    let (mut after, mut lines) = (None, Vec::new());
    loop {
        // `since` makes it begin at the begin.
        let query = LogQuery { source: source.clone(), since: Some(Stamp::EPOCH), after, limit: 7 };
        let page = logs.query(&query).unwrap();
        if page.lines.is_empty() {
            return lines;
        }
        after = Some(page.next);
        lines.extend(page.lines.into_iter().map(|line| line.text));
    }
}

#[test]
fn nothing_is_lost_or_doubled_over_rotation_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::new(folder.path());
    let mut logs = Logs::open(&state, limits(2_000)).unwrap();
    let (mut out, mut err) = logs.open_spool("orders-0.1").unwrap();
    let (mut other, _) = logs.open_spool("orders-1.1").unwrap();
    writeln!(other, "quiet").unwrap();
    let now = Stamp::from_micros(1_000_000);
    for round in 0..50 {
        for line in 0..10 {
            writeln!(out, "line {}", round * 10 + line).unwrap();
        }
        writeln!(err, "error {round}").unwrap();
        logs.collect(now);
        if round % 7 == 0 {
            logs = Logs::open(&state, limits(2_000)).unwrap();
        }
    }
    write!(out, "unfinished").unwrap();
    logs.close("orders-0.1", now);
    let lines = all_lines(&logs);
    let count = |prefix: &str| lines.iter().filter(|line| line.starts_with(prefix)).count();
    assert_eq!((count("line "), count("error "), count("quiet"), count("unfinished")), (500, 50, 1, 1));
    let of_line = |line: &&String| line.strip_prefix("line ").and_then(|n| n.parse::<u32>().ok());
    assert!(lines.iter().filter_map(|line| of_line(&line)).is_sorted());
    assert!(!state.spool().join("orders-0.1.out").exists());
}

#[test]
fn a_torn_last_line_is_written_again_whole() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::new(folder.path());
    let now = Stamp::from_micros(1_000_000);
    let logs = Logs::open(&state, limits(1 << 20)).unwrap();
    let (mut out, _err) = logs.open_spool("orders-0.1").unwrap();
    out.write_all(b"one\ntwo\n").unwrap();
    logs.collect(now);
    let file = state.logs().join("services/orders.000001.log");
    let size = fs::metadata(&file).unwrap().len();
    File::options().write(true).open(&file).unwrap().set_len(size - 2).unwrap();
    let logs = Logs::open(&state, limits(1 << 20)).unwrap();
    logs.collect(now);
    assert_eq!(all_lines(&logs), ["one", "two"]);
}

#[test]
fn consumed_space_is_given_back_while_the_writer_goes_on() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::new(folder.path());
    let logs = Logs::open(&state, LogLimits::default()).unwrap();
    let (mut out, _err) = logs.open_spool("orders-0.1").unwrap();
    let line = format!("{}\n", "x".repeat(999));
    for _ in 0..1_000 {
        out.write_all(line.as_bytes()).unwrap();
    }
    logs.collect(Stamp::EPOCH);
    let found = fs::metadata(state.spool().join("orders-0.1.out")).unwrap();
    assert_eq!(found.len(), 1_000_000);
    assert!(found.blocks() * 512 < 100_000 || logs.limitation().is_some(), "{} blocks", found.blocks());
    assert_eq!(all_lines(&logs).len(), 1_000);
}

#[test]
fn the_last_lines_are_those_of_both_outputs_and_long_ones_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(&StateDir::new(folder.path()), LogLimits::default()).unwrap();
    let (mut out, mut err) = logs.open_spool("orders-0.1").unwrap();
    (0..30).for_each(|n| writeln!(out, "{n}").unwrap());
    err.write_all(format!("{}ä", "y".repeat(LINE_BYTES_MAX - 1)).as_bytes()).unwrap();
    let last = logs.last_lines("orders-0.1", Stamp::EPOCH);
    assert_eq!((last.len(), last[0].as_str(), last[19].as_str()), (20, "12", "ä"));
}

#[test]
fn a_question_without_a_place_gives_the_last_lines_and_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(&StateDir::new(folder.path()), limits(500)).unwrap();
    let (mut out, _err) = logs.open_spool("orders-0.1").unwrap();
    for n in 0..40 {
        writeln!(out, "{n}").unwrap();
        logs.collect(Stamp::from_micros(n * 1_000_000));
    }
    let source = LogSource::Service("orders".parse().unwrap());
    let mut query = LogQuery { source, since: None, after: None, limit: 3 };
    let page = logs.query(&query).unwrap();
    assert_eq!(page.lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["37", "38", "39"]);
    query.after = Some(page.next);
    assert!(logs.query(&query).unwrap().lines.is_empty());
    writeln!(out, "40").unwrap();
    logs.collect(Stamp::from_micros(40_000_000));
    assert_eq!(logs.query(&query).unwrap().lines[0].text, "40");
    let since = LogQuery { since: Some(Stamp::from_micros(35_000_000)), after: None, ..query };
    assert_eq!(logs.query(&since).unwrap().lines[0].text, "35");
}
