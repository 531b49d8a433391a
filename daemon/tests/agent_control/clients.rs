//! Clients that send nonsense, too much or nothing, and more of them than there is room for.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hv_vssd::control::{Request, Thawed};

use super::double::PATIENCE;
use super::{Scene, checkpoint, report};

#[test]
fn nonsense_is_answered_with_what_is_wrong_and_the_connection_goes_on() {
    let scene = Scene::new(PATIENCE);
    let mut stream = scene.raw();
    for line in ["", "x", "{}", "{\"command\":\"freeze\"}", "\u{0}\u{1}"] {
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        let answer = read_line(&mut stream);
        assert!(answer.starts_with("{\"error\":\""), "{line:?}: {answer}");
    }
    stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
    assert!(read_line(&mut stream).starts_with("{\"ok\":{"));
    checkpoint(&scene.driver);
}

#[test]
fn a_line_without_an_end_is_refused_and_the_connection_closed() {
    let scene = Scene::new(PATIENCE);
    let mut stream = scene.raw();
    // The agent stops reading at its bound, and closes.
    let _ = stream.write_all(&vec![b'x'; 200 * 1024]);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.is_empty() || answer.contains("longer than"),
        "{answer}"
    );
    checkpoint(&scene.driver);
}

#[test]
fn many_requests_at_once_are_answered_in_their_order() {
    let scene = Scene::new(PATIENCE);
    let mut stream = scene.raw();
    let requests = "{\"command\":\"check\"}\n{\"command\":\"thaw\"}\n".repeat(100);
    stream.write_all(requests.as_bytes()).unwrap();
    for _ in 0..100 {
        assert!(read_line(&mut stream).contains("\"version\""));
        assert!(read_line(&mut stream).contains("\"held\":false"));
    }
}

#[test]
fn clients_that_do_not_read_or_do_not_speak_delay_no_checkpoint() {
    let scene = Scene::new(PATIENCE);
    for _ in 0..16 {
        checkpoint(&scene.driver);
    }
    let silent: Vec<UnixStream> = (0..3).map(|_| scene.raw()).collect();
    let deaf: Vec<UnixStream> = (0..3)
        .map(|_| {
            let mut stream = scene.raw();
            stream
                .set_write_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            // More answers than any buffer holds.
            let _ = stream.write_all("{\"command\":\"status\"}\n".repeat(2_000).as_bytes());
            stream
        })
        .collect();
    for _ in 0..5 {
        checkpoint(&scene.driver);
    }
    assert_eq!(scene.status().counters.host.failed, 0);
    drop((silent, deaf));
}

#[test]
fn when_there_are_too_many_clients_the_oldest_idle_one_goes_and_none_that_holds() {
    let scene = Scene::new(PATIENCE);
    let mut holder = scene.freeze(3600.0);
    let mut idle: Vec<UnixStream> = (0..20).map(|_| scene.raw()).collect();
    let mut byte = [0];
    assert_eq!(idle[0].read(&mut byte).unwrap(), 0, "the oldest is dropped");
    assert_eq!(scene.double.frozen(), [1, 2], "the hold stays");
    idle.clear();
    let _: Thawed = scene.client().ask(&Request::Thaw).unwrap();
    assert!(report(&mut holder).is_clean());
}

fn read_line(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}
