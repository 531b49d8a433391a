use super::*;
use proptest::prelude::*;

fn refused(line: &str) -> String {
    Request::parse(line.as_bytes()).unwrap_err().error
}

#[test]
fn the_requests_are_what_the_documentation_shows() {
    let parse = |line: &str| Request::parse(line.as_bytes()).unwrap();
    assert_eq!(parse(r#"{"command":"status"}"#), Request::Status);
    assert_eq!(parse(r#"{"command":"thaw"}"#), Request::Thaw);
    assert_eq!(parse(r#"{"command":"check"}"#), Request::Check);
    assert_eq!(
        parse(r#"{"command":"freeze","seconds":5,"paths":["/srv","/var"]}"#),
        Request::Freeze {
            seconds: 5.0,
            paths: vec!["/srv".into(), "/var".into()]
        }
    );
    assert_eq!(
        parse(r#" {"command":"freeze","seconds":0.5} "#),
        Request::Freeze {
            seconds: 0.5,
            paths: vec![]
        }
    );
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    for (line, says) in [
        ("", "no request"),
        ("status", "no request"),
        ("[]", "no request"),
        (r#"{"command":"reboot"}"#, "unknown variant `reboot`"),
        (r#"{"command":"freeze"}"#, "missing field `seconds`"),
        (r#"{"command":"freeze","seconds":"5"}"#, "invalid type"),
        (
            r#"{"command":"freeze","seconds":0}"#,
            "more than 0 and at most 3600 s",
        ),
        (r#"{"command":"freeze","seconds":-1}"#, "more than 0"),
        (r#"{"command":"freeze","seconds":1e300}"#, "at most 3600 s"),
        (r#"{"command":"freeze","seconds":3601}"#, "at most 3600 s"),
        (
            r#"{"command":"freeze","seconds":5,"path":["/"]}"#,
            "unknown field `path`",
        ),
        (
            r#"{"command":"freeze","seconds":5,"paths":["srv"]}"#,
            "srv is no absolute path",
        ),
    ] {
        let error = refused(line);
        assert!(error.contains(says), "{line}: {error}");
    }
    let paths = vec!["\"/srv\""; 1025].join(",");
    let line = format!(r#"{{"command":"freeze","seconds":5,"paths":[{paths}]}}"#);
    assert!(refused(&line).contains("1024 at most"));
}

#[test]
fn a_refusal_says_whether_something_else_is_at_work() {
    let text = |reply| String::from_utf8(line::<()>(Err(reply))).unwrap();
    assert_eq!(text(Refusal::of("no")), "{\"error\":\"no\"}\n");
    assert_eq!(
        text(Refusal::busy("later")),
        "{\"error\":\"later\",\"busy\":true}\n"
    );
    let reply: Reply<FreezeAnswer> = serde_json::from_str(r#"{"ok":{"held":5.0}}"#).unwrap();
    let ok = FreezeAnswer::Held { held: 5.0 };
    assert_eq!(reply, Reply::Ok { ok });
}

proptest! {
    #[test]
    fn no_line_makes_it_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Request::parse(&line);
    }

    #[test]
    fn no_text_that_is_nearly_a_request_makes_it_panic(
        command in "(freeze|thaw|status|check|[a-z]{0,6})",
        seconds in prop::num::f64::ANY,
        path in ".{0,40}",
        cut in 0_usize..200,
    ) {
        let seconds = serde_json::to_string(&seconds).unwrap();
        let path = serde_json::to_string(&path).unwrap();
        let line = format!(r#"{{"command":"{command}","seconds":{seconds},"paths":[{path}]}}"#);
        if let Ok(Request::Freeze { seconds, paths }) = Request::parse(line.as_bytes()) {
            prop_assert!(Request::hold(seconds).is_some());
            prop_assert!(paths.iter().all(|path| path.is_absolute()));
        }
        let cut = line.as_bytes().iter().copied().take(cut).collect::<Vec<_>>();
        let _ = Request::parse(&cut);
    }

    #[test]
    fn what_is_written_is_read_back(
        milliseconds in 1_u32..3_600_000,
        paths in prop::collection::vec("/[^\0]{0,30}", 0..5),
    ) {
        let paths = paths.into_iter().map(PathBuf::from).collect();
        let seconds = f64::from(milliseconds) / 1000.0;
        let request = Request::Freeze { seconds, paths };
        let written = serde_json::to_vec(&request).unwrap();
        prop_assert!(!written.contains(&b'\n'));
        prop_assert_eq!(Request::parse(&written), Ok(request));
    }
}
