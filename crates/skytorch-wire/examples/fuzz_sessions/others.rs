//! What needs no session of its own: lanes without a session or with the tickets of others, sessions beside one that is
//! open, tokens that are wrong. Each is tried once at the start, and lanes beside sessions all along.

use std::time::{Duration, Instant};

use skytorch_wire::client::ConnectOptions;
use skytorch_wire::codec::frame;
use skytorch_wire::error::Code;
use skytorch_wire::fuzz;
use skytorch_wire::net::Credential;

use crate::mutate::Random;
use crate::raw::{self, End, Outgoing, framed, hello};

fn nothing() -> Outgoing {
    Outgoing::new([], End::Finish)
}

fn expect(
    what: &str,
    answer: Result<raw::Answer, skytorch_wire::error::WireError>,
    code: Code,
) -> Result<(), String> {
    match answer {
        Ok(answer) if answer.refused == Some(code.number()) => Ok(()),
        other => Err(format!("{what}: {other:?} where {code:?} belongs")),
    }
}

/// A message on a lane.
fn piece(data: &[u8]) -> bytes::Bytes {
    framed(&[&[0; 8][..], data].concat())
}

/// An upload after the session: its ticket is good for nothing by then, or never was. `kept`: the session may go on.
pub(crate) fn lane(options: &ConnectOptions, random: &mut Random, id: [u8; 16], kept: bool) -> Result<(), String> {
    let signed = random.below(3) == 0;
    let ticket = match signed {
        true => fuzz::signed_ticket(1, 64, id),
        false => random.of(&["0", "z", "f0"]).repeat(random.below(150)),
    };
    let body = Outgoing::new([piece(&[1; 64])], End::Finish);
    let answer = raw::call(options, raw::UPLOAD, Some(&ticket), body, raw::PATIENCE);
    match answer {
        Ok(_) if signed && kept => Ok(()),
        answer => expect("a lane without its session", answer, Code::Unauthenticated),
    }
}

/// A server that has no session: what is refused and how.
pub(crate) fn all(options: &ConnectOptions) -> Result<(), String> {
    let refused = Code::Unauthenticated;
    for token in [None, Some(""), Some("wrong"), Some("\u{7f}")] {
        let token = token.map(|token| Credential::Given(token.into()));
        let strange = ConnectOptions { token, ..options.clone() };
        let opening = Outgoing::new([framed(&frame::hello(&hello(raw::fresh_id())))], End::Finish);
        match raw::call(&strange, raw::OPEN, None, opening, raw::PATIENCE) {
            // A token that is no header does not get that far.
            Err(error) if error.code == Code::InvalidArgument => {}
            answer => expect("a wrong token", answer, refused)?,
        }
    }
    expect("a lane without a ticket", raw::call(options, raw::UPLOAD, None, nothing(), raw::PATIENCE), refused)?;
    let foreign = fuzz::signed_ticket(1, 64, raw::fresh_id());
    expect("a lane of nobody", raw::call(options, raw::UPLOAD, Some(&foreign), nothing(), raw::PATIENCE), refused)?;
    beside(options)
}

/// While a session is open: others are told that it is busy, and their tickets are not its tickets. The same ticket is
/// good once, an upload brings what it says, and one that is cut off is no harm.
fn beside(options: &ConnectOptions) -> Result<(), String> {
    let id = raw::fresh_id();
    let holder = options.clone();
    let opening = move || Outgoing::new([framed(&frame::hello(&hello(id)))], End::Stay);
    let held = std::thread::spawn(move || {
        loop {
            match raw::call(&holder, raw::OPEN, None, opening(), Duration::from_secs(2)) {
                Ok(answer) if answer.is_busy() => {}
                other => return other,
            }
        }
    });
    let another = || Outgoing::new([framed(&frame::hello(&hello(raw::fresh_id())))], End::Finish);
    let deadline = Instant::now() + raw::PATIENCE;
    while !raw::call(options, raw::OPEN, None, another(), raw::PATIENCE).is_ok_and(|answer| answer.is_busy()) {
        if Instant::now() > deadline {
            return Err("a second session was never told that the server is busy".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let same = Outgoing::new([framed(&frame::hello(&hello(id)))], End::Finish);
    expect("the session of another", raw::call(options, raw::OPEN, None, same, raw::PATIENCE), Code::ServerBusy)?;
    let upload = |ticket: &str, data: &[&[u8]], end| {
        let body = Outgoing::new(data.iter().map(|data| piece(data)), end);
        let patience = if end == End::Stay { Duration::from_millis(50) } else { raw::PATIENCE };
        raw::call(options, raw::UPLOAD, Some(ticket), body, patience)
    };
    let foreign = fuzz::signed_ticket(1, 64, raw::fresh_id());
    expect("a ticket of another session", upload(&foreign, &[], End::Finish), Code::Unauthenticated)?;
    let short = fuzz::signed_ticket(1, 64, id);
    expect("an upload that is too short", upload(&short, &[&[0; 10]], End::Finish), Code::Protocol)?;
    expect("a ticket for the second time", upload(&short, &[&[0; 64]], End::Finish), Code::Unauthenticated)?;
    let long = fuzz::signed_ticket(2, 64, id);
    expect("an upload that is too long", upload(&long, &[&[0; 65]], End::Finish), Code::Protocol)?;
    let huge = fuzz::signed_ticket(3, u64::MAX, id);
    expect("an upload of too many bytes", upload(&huge, &[], End::Finish), Code::LimitExceeded)?;
    upload(&fuzz::signed_ticket(4, 1 << 20, id), &[&[0; 1000]], End::Stay).map_err(|e| e.to_string())?;
    let whole = upload(&fuzz::signed_ticket(5, 64, id), &[&[0; 32], &[0; 32]], End::Finish);
    if !matches!(&whole, Ok(answer) if answer.refused.is_none_or(|code| code == 0)) {
        return Err(format!("a whole upload: {whole:?}"));
    }
    held.join().map_err(|_| "the holder panicked")?.map_err(|e| e.to_string()).map(|_| ())
}
