//! Runs the scenarios.

use streamer_simulation::{model::Setup, scenario::loads::run_broadcast, world::Kind};

fn main() {
    for n in std::env::args().skip(1) {
        let n: usize = n.parse().unwrap_or(1000);
        let began = std::time::Instant::now();
        let r = run_broadcast(&Setup::WHOLE_ACCOUNT, n);
        println!("{n}: last {} p50 {} posts {} delivered {} gone {} dup {} hb {} inv {} {:?} {}", r.last_delivery(), r.quantile(Kind::Broadcast, 0.5), r.posts, r.delivered, r.gone, r.duplicates, r.handed_back, r.invocations, began.elapsed(), r.bound);
    }
}
