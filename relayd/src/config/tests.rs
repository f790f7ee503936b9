use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use super::*;

const EXAMPLE: &str = include_str!("../../../config.example.toml");

fn parse(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let env = env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    Config::parse(Path::new("relayd.toml"), text, env)
}

fn refusal(text: &str, env: &[(&str, &str)]) -> String {
    parse(text, env).unwrap_err().to_string()
}

#[test]
fn nothing_means_the_defaults() {
    assert_eq!(parse("", &[]).unwrap(), Config::default());
    assert_eq!(Config::load(None, std::iter::empty()).unwrap(), Config::default());
}

#[test]
fn the_example_is_the_defaults_in_full() {
    assert_eq!(parse(EXAMPLE, &[]).unwrap(), Config::default());
    let example: Table = EXAMPLE.parse().unwrap();
    assert_eq!(example, Config::default().to_toml().parse::<Table>().unwrap());
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    for pair in lines.windows(2).filter(|pair| pair[1].contains(" = ")) {
        assert!(pair[0].starts_with("# ") || pair[1].starts_with('#'), "{} has no comment", pair[1]);
    }
}

#[test]
fn what_is_written_is_read_back() {
    let text = r#"
        [server]
        listen = ["0.0.0.0:80", "[::1]:3000"]
        cors = ["https://app.example.com"]
        trusted_proxies = ["10.0.0.0/8"]
        [log]
        level = "debug"
        format = "json"
        file = "/var/log/relayd.log"
    "#;
    let config = parse(text, &[]).unwrap();
    assert_eq!(config.server.cors, Cors::Origins(vec!["https://app.example.com".to_owned()]));
    assert_eq!(config.log.file(), Some(Path::new("/var/log/relayd.log")));
    assert_eq!(parse(&config.to_toml(), &[]).unwrap(), config);
}

#[test]
fn variables_override_the_file() {
    let file = "[server]\nworkers = 2\nbody_bytes_max = 2048\n";
    let config = parse(
        file,
        &[
            ("RELAYD__SERVER__WORKERS", "4"),
            ("RELAYD__SERVER__LISTEN", "127.0.0.1:1, [::1]:2"),
            ("RELAYD__SERVER__TRUSTED_PROXIES", r#"["10.0.0.0/8"]"#),
            ("RELAYD__SERVER__CORS", "https://a.example,https://b.example"),
            ("RELAYD__AUTH__KEY_PREFIX", "1234"),
            ("RELAYD__FAILOVER__TOTAL_MS", "60_000"),
            ("RELAYD__LOG__REQUESTS", "true"),
            ("RELAYD__LOG__FORMAT", "\"json\""),
            ("RELAYD__LOG__FILE", "/var/log/a b.log"),
            ("RELAYD_SOCKET", "/run/relayd.sock"),
            ("RELAYDX", "1"),
        ],
    );
    let config = config.unwrap();
    let addresses: [SocketAddr; 2] = ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()];
    let origins = vec!["https://a.example".to_owned(), "https://b.example".to_owned()];
    assert_eq!((config.server.workers, config.server.body_bytes_max), (4, 2_048));
    assert_eq!(config.server.listen, addresses);
    assert!(config.server.trusted_proxies[0].contains("10.1.2.3".parse().unwrap()));
    assert_eq!(config.server.cors, Cors::Origins(origins));
    assert_eq!(config.auth.key_prefix, "1234");
    assert_eq!(config.failover.total_ms.duration(), Duration::from_secs(60));
    assert_eq!((config.log.requests, config.log.format), (true, LogFormat::Json));
    assert_eq!(config.log.file(), Some(Path::new("/var/log/a b.log")));
}

#[test]
fn lists_can_be_emptied_by_a_variable() {
    let file = "[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\n";
    let config = parse(file, &[("RELAYD__SERVER__TRUSTED_PROXIES", "")]).unwrap();
    assert!(config.server.trusted_proxies.is_empty());
}

#[test]
fn refusals_of_names_say_where_and_what_would_be_right() {
    for (text, expected) in [
        (
            "[server]\n\nworker = 1\n",
            "relayd.toml:3: there is no server.worker; did you mean server.workers?",
        ),
        ("[sever]\n", "relayd.toml:1: there is no sever; did you mean server?"),
        ("workers = 1\n", "relayd.toml:1: there is no workers; did you mean server.workers?"),
        (
            "[server]\nattempts = 1\n",
            "relayd.toml:2: there is no server.attempts; did you mean failover.attempts?",
        ),
        (
            "[server]\nbody = 1\n",
            "relayd.toml:2: there is no server.body; config.example.toml has every setting",
        ),
        ("[database]\n", "relayd.toml:1: there is no database; config.example.toml has every setting"),
        (
            "server = 1\n",
            "relayd.toml:1: server is a section: write [server] on a line of its own and its settings below",
        ),
        (
            "[[server]]\nworkers = 1\n",
            "relayd.toml:1: server is a section: write [server] on a line of its own and its settings below",
        ),
    ] {
        assert_eq!(refusal(text, &[]), expected);
    }
    let syntax = refusal("[server]\nworkers = \n", &[]);
    assert!(syntax.starts_with("relayd.toml:2: "), "{syntax}");
}

#[test]
fn refusals_of_values_say_where_and_what_would_be_right() {
    for (text, expected) in [
        (
            "[server]\nworkers = \"4\"\n",
            "relayd.toml:2: server.workers must be a whole number from 0 on, such as the default 0",
        ),
        (
            "[failover]\nattempts = -1\n",
            "relayd.toml:2: failover.attempts must be a whole number from 0 on, such as the default 3",
        ),
        (
            "[auth]\nkey_prefix = 7\n",
            "relayd.toml:2: auth.key_prefix must be a text in quotes, such as the default \"cr_\"",
        ),
        (
            "[server]\nlisten = \"127.0.0.1:3000\"\n",
            "relayd.toml:2: server.listen must be a list in brackets, such as the default [\"127.0.0.1:3000\"]",
        ),
        (
            "[server]\nlisten = [\"localhost\"]\n",
            "relayd.toml:2: server.listen: \"localhost\" is no address: write an IP address with a port, such as \
             \"127.0.0.1:3000\" or \"[::]:3000\"; the default is [\"127.0.0.1:3000\"]",
        ),
        (
            "[log]\nlevel = \"loud\"\n",
            "relayd.toml:2: log.level: `loud` is not one of `off`, `error`, `warn`, `info`, \
             `debug`, `trace`; the default is \"info\"",
        ),
        (
            "[log]\nrequests = \"yes\"\n",
            "relayd.toml:2: log.requests: invalid type: string \"yes\", expected a boolean; the default is false",
        ),
        (
            "[store]\nurl = \"mysql://localhost\"\n",
            "relayd.toml:2: store.url: must be \"embedded\", or a URL such as \"redis://127.0.0.1:6379/0\" \
             (\"rediss://\" for TLS); the default is \"embedded\"",
        ),
        (
            "[server]\ncors = true\n",
            "relayd.toml:2: server.cors: true does not say for whom; list the origins, or [\"*\"] for all of \
             them; the default is false",
        ),
        (
            "[server]\ncors = 7\n",
            "relayd.toml:2: server.cors: must be false or a list of origins such as \
             [\"https://app.example.com\"]; the default is false",
        ),
        (
            "[server]\ntrusted_proxies = [\"10/8\"]\n",
            "relayd.toml:2: server.trusted_proxies: \"10/8\" is not an address range such as \"10.0.0.0/8\"; \
             the default is []",
        ),
    ] {
        assert_eq!(refusal(text, &[]), expected);
    }
}

#[test]
fn refusals_of_variables_name_them() {
    for (name, value, expected) in [
        (
            "RELAYD__SERVER__WORKER",
            "1",
            "RELAYD__SERVER__WORKER: there is no server.worker; did you mean RELAYD__SERVER__WORKERS?",
        ),
        ("RELAYD__SERVER", "1", "RELAYD__SERVER: there is no server; config.example.toml has every setting"),
        (
            "RELAYD__SEVER__WORKERS",
            "1",
            "RELAYD__SEVER__WORKERS: there is no sever.workers; did you mean RELAYD__SERVER__WORKERS?",
        ),
        (
            "RELAYD__SOMETHING__ELSE",
            "1",
            "RELAYD__SOMETHING__ELSE: there is no something.else; config.example.toml has every setting",
        ),
        (
            "RELAYD__SERVER__WORKERS",
            "many",
            "RELAYD__SERVER__WORKERS: server.workers must be a whole number from 0 on, such as the default 0",
        ),
        (
            "RELAYD__SERVER__LISTEN",
            "3000",
            "RELAYD__SERVER__LISTEN: server.listen: \"3000\" is no address: write an IP address with a port, such as \
             \"127.0.0.1:3000\" or \"[::]:3000\"; the default is [\"127.0.0.1:3000\"]",
        ),
        (
            "RELAYD__FAILOVER__ATTEMPTS",
            "0",
            "RELAYD__FAILOVER__ATTEMPTS: failover.attempts is 0; it must be 1 to 20",
        ),
    ] {
        assert_eq!(refusal("[failover]\nattempts = 2\n", &[(name, value)]), expected);
    }
}

#[test]
fn every_number_has_bounds_that_hold() {
    let defaults = Config::default();
    let known = defaults.to_table();
    let bounded = check::numbers(&defaults);
    let is_number = |key: &String| {
        let (section, key) = key.split_once('.').unwrap();
        known[section][key].is_integer()
    };
    let mut numbers: Vec<String> = source::dotted(&known).filter(is_number).collect();
    let mut names: Vec<&str> = bounded.iter().map(|&(key, ..)| key).collect();
    numbers.sort_unstable();
    names.sort_unstable();
    assert_eq!(numbers, names);

    for (key, default, least, most) in bounded {
        assert!((least..=most).contains(&default), "{key}");
        let name = format!("RELAYD__{}", key.to_uppercase().replace('.', "__"));
        for wrong in least.checked_sub(1).into_iter().chain([most + 1]) {
            let expected = format!("{name}: {key} is {wrong}; it must be {least} to {most}");
            assert_eq!(refusal("", &[(&name, &wrong.to_string())]), expected);
        }
        for right in [least, most] {
            let refused = parse("", &[(&name, &right.to_string())]).err();
            assert!(!matches!(refused, Some(ConfigError::OutOfBounds { .. })), "{key} = {right}");
        }
    }
}

#[test]
fn settings_must_agree_with_each_other() {
    for (text, expected) in [
        (
            "[server]\nbody_bytes_max = 4096\nbody_bytes_in_flight_max = 2048\n",
            "relayd.toml:2: server.body_bytes_max is 4096; it must not exceed server.body_bytes_in_flight_max, \
             which is 2048",
        ),
        (
            "[failover]\ntotal_ms = 1000\n",
            "relayd.toml:2: failover.hold_ms is 5000; it must not exceed failover.total_ms, which is 1000",
        ),
        (
            "[health]\nlimited_max_ms = 1000\n",
            "relayd.toml:2: health.limited_ms is 60000; it must not exceed health.limited_max_ms, which is 1000",
        ),
        (
            "[journal]\nbytes_max = 1048576\n",
            "relayd.toml:2: journal.segment_bytes is 8388608; it must not exceed journal.bytes_max, \
             which is 1048576",
        ),
        ("[server]\nlisten = []\n", "relayd.toml:2: server.listen must have at least one address"),
        (
            "[auth]\nkey_prefix = \"a b\"\n",
            "relayd.toml:2: auth.key_prefix must be 1 to 16 letters, digits, underscores and hyphens",
        ),
        (
            "[ledger]\nrollups_keep_days = 30\n",
            "relayd.toml:2: ledger.rollups_keep_days must be 0, which is for ever, or at least \
             ledger.rows_keep_days",
        ),
    ] {
        assert_eq!(refusal(text, &[]), expected);
    }
}

#[test]
fn a_silent_account_is_left_before_the_last_deadline_comes() {
    let Config { failover, upstream, .. } = Config::default();
    assert!(failover.stream_silence_ms <= failover.whole_silence_ms);
    assert!(failover.whole_silence_ms < upstream.first_byte_timeout_ms);
    assert!(failover.attempts > 1);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let missing = Path::new("no/such/relayd.toml");
    let error = Config::load(Some(missing), std::iter::empty()).unwrap_err();
    assert_eq!(error.to_string(), "no/such/relayd.toml: cannot be read");
    assert!(matches!(error, ConfigError::Unreadable { source, .. } if source.kind() == ErrorKind::NotFound));
}

#[test]
fn empty_names_stand_for_something() {
    let config = Config::default();
    assert_eq!(config.log.file(), None);
    assert_eq!(config.secrets.sealing_key_file(Path::new("/data")), Path::new("/data/sealing.key"));
    let named = parse("[secrets]\nsealing_key_file = \"/etc/key\"\n", &[]).unwrap();
    assert_eq!(named.secrets.sealing_key_file(Path::new("/data")), Path::new("/etc/key"));
    assert_eq!(config.ledger.rollups_keep(), None);
    assert_eq!(config.ledger.rows_keep(), Some(Duration::from_secs(90 * 86_400)));
    assert_eq!(config.journal.keep_s, 600);
}
