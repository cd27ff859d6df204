//! Other proxies ask the real binary for verdicts (N1 to N28, N61 to N64, B45, B46): with questions in the form of each proxy, and with
//! the proxies themselves and the files of `examples/`, in front of an upstream that records requests.

mod asked;
mod attacks;
mod before;
mod conditions;
mod f5;
mod mutual;
mod names;
mod proofs;
mod proxies;
mod scene;
mod sessions;
