//! A stand-in for a receiver of security events, written from RFC 8935: it accepts each event, or answers as a test
//! wants.

use std::net::TcpListener;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::transmitter::{Asked, Lie, respond};

#[derive(Default)]
pub struct State {
    /// The accepted events as they arrived, oldest first.
    pub taken: Vec<String>,
    /// All requests, oldest first.
    pub asked: Vec<Asked>,
    pub lie: Option<Lie>,
}

/// The receiver.
pub struct Receiver {
    pub url: String,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Receiver {
    /// A receiver at a port of this machine, for a transmitter with this token.
    pub fn start(token: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let (shared, token) = (Arc::new((Mutex::new(State::default()), Condvar::new())), format!("Bearer {token}"));
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let Ok(asked) = Asked::read(&stream) else { continue };
                let (status, answer) = answer(&served, &token, asked);
                let _ = respond(&stream, status, &answer);
            }
        });
        Self { url, shared }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }

    /// Waits until the receiver has accepted this many events, for at most a minute.
    pub fn until_taken(&self, number: usize) -> Vec<String> {
        let mut state = self.state();
        for _ in 0..600 {
            if state.taken.len() >= number {
                return state.taken.clone();
            }
            state = self.shared.1.wait_timeout(state, Duration::from_millis(100)).unwrap().0;
        }
        panic!("{number} events: {:#?}", state.asked);
    }
}

fn answer(shared: &(Mutex<State>, Condvar), token: &str, asked: Asked) -> (u16, String) {
    let mut state = shared.0.lock().unwrap();
    state.asked.push(asked.clone());
    shared.1.notify_all();
    if let Some(mut lie) = state.lie.take() {
        let answer = lie(&asked);
        state.lie = Some(lie);
        if let Some(answer) = answer {
            return answer;
        }
    }
    if asked.authorization != token {
        return (401, String::new());
    }
    state.taken.push(asked.text);
    (202, String::new())
}
