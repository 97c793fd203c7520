fn main() {
    let mut args = std::env::args().skip(1);
    let r = match args.next().as_deref() {
        Some("explain") => xrun::inspect::explain(args),
        Some("dump") => xrun::inspect::dump(args),
        _ => return,
    };
    match r {
        Ok(s) => print!("{s}"),
        Err(e) => eprintln!("xrun: {e}"),
    }
}
