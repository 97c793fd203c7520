//! The AArch64 half of the comparison: reads cases from standard input, runs each through the translator, writes outcomes to
//! standard output. Ends when the input does. A case that runs for two seconds ends the process by SIGALRM.
//!
//! A request is a byte that says what is wanted (bit 0: a listing instead of the outcome; the rest: the
//! [`Mode`]), the length of the code as a u32, the code and the state.

use crate::truth::state::{Case, STATE_BYTES, Wire};
use crate::truth::translated::{Mode, Translated};
use std::io::{Read, Write};

/// # Errors
/// When the fixed addresses are taken, or the pipe breaks in the middle of a request.
pub fn main() -> Result<bool, String> {
    let mut t = Translated::new()?;
    let mut input = std::io::stdin().lock();
    let mut output = std::io::stdout().lock();
    loop {
        let mut head = [0; 5];
        if input.read_exact(&mut head).is_err() {
            return Ok(true);
        }
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut code = vec![0; length];
        let mut state = vec![0; STATE_BYTES];
        input.read_exact(&mut code).and_then(|()| input.read_exact(&mut state)).map_err(|e| e.to_string())?;
        let state = Wire::state(&mut state.as_slice()).ok_or("short state")?;
        let case = Case { code, state };
        let mode = Mode::from_number(head[0] >> 1);
        let mut reply = Vec::new();
        if head[0] & 1 == 0 {
            watch(2);
            Wire::put_outcome(&mut reply, &t.run(&case, mode));
            watch(0);
        } else {
            let text = t.listing(&case, mode);
            reply.extend_from_slice(&(text.len() as u32).to_le_bytes());
            reply.extend_from_slice(text.as_bytes());
        }
        output.write_all(&reply).and_then(|()| output.flush()).map_err(|e| e.to_string())?;
    }
}

fn watch(seconds: i64) {
    let none = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let once = libc::itimerval { it_interval: none, it_value: libc::timeval { tv_sec: seconds, tv_usec: 0 } };
    // SAFETY: arms or disarms a timer of this process.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &once, std::ptr::null_mut()) };
}
