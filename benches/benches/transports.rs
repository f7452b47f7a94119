//! Transports over loopback, each beside raw: one way small and bulk, request and answer.
//!
//! Each end has a runtime of its own. For a look at one of them. What our layer costs is measured in pairs: see `ratio.rs`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use peerlane_benches::{Kind, Link, Messages, Mode, Runtimes, Style};
use peerlane_transport::ClassTable;

/// Messages that one sample carries at least, so that its beginning and end don't count.
const LEAST: u64 = 16;

fn transports(criterion: &mut Criterion) {
    let runtimes = Runtimes::new(Mode::Own, Mode::Own.default_workers()).unwrap();
    let table = ClassTable::standard();
    let (belief, query) = (table.by_name(ClassTable::BELIEF).unwrap(), table.by_name(ClassTable::QUERY).unwrap());
    for kind in [Kind::Quic, Kind::Tcp] {
        for (name, link) in links(&runtimes, kind) {
            let mut group = criterion.benchmark_group(format!("{} {name}", kind.name()));
            group.sample_size(20).measurement_time(Duration::from_secs(3));
            for (work, class, size) in [("one way, 256 B", query, 256), ("one way, 64 KiB", belief, 65_536)] {
                let messages = Messages::new(size);
                group.throughput(Throughput::Bytes(size as u64));
                group.bench_function(work, |bencher| {
                    bencher.iter_custom(|count| {
                        let carried = count.max(LEAST);
                        let took = runtimes.wait(link.one_way(class, &messages, carried as usize)).unwrap();
                        took.mul_f64(count as f64 / carried as f64)
                    });
                });
            }
            let (requests, answers) = (Messages::new(100), Messages::new(300));
            group.throughput(Throughput::Elements(1));
            group.bench_function("request 100 B, answer 300 B", |bencher| {
                bencher.iter_custom(|count| runtimes.wait(link.round_trips(query, &requests, &answers, count as usize)).unwrap());
            });
            group.finish();
        }
    }
}

fn links(runtimes: &Runtimes, kind: Kind) -> [(&'static str, Link); 3] {
    runtimes.wait(async {
        [
            ("peerlane", Link::peerlane(kind, runtimes).await.unwrap()),
            ("raw", Link::raw(kind, Style::Plain, runtimes).await.unwrap()),
            ("raw tuned", Link::raw(kind, Style::Tuned, runtimes).await.unwrap()),
        ]
    })
}

criterion_group!(benches, transports);
criterion_main!(benches);
