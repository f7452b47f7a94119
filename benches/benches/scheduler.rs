//! The class scheduler: what one decision costs.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use peerlane_transport::{ClassId, ClassTable, class::Scheduler, limits::QUANTUM};

fn scheduler(criterion: &mut Criterion) {
    let table = ClassTable::standard();
    let mut group = criterion.benchmark_group("scheduler");
    group.throughput(Throughput::Elements(1));

    let mut all = Scheduler::new(&table);
    table.iter().for_each(|(class, _)| all.set_waiting(class, true));
    group.bench_function("pick and charge, five classes wait", |bencher| {
        bencher.iter(|| {
            let class = all.pick(|_| true).unwrap_or(ClassId(0));
            all.charge(class, black_box(QUANTUM));
            class
        });
    });

    let (query, belief) = (ClassId(1), ClassId(4));
    let mut flood = Scheduler::new(&table);
    flood.set_waiting(belief, true);
    group.bench_function("a query comes, goes before the flood, and is gone", |bencher| {
        bencher.iter(|| {
            flood.set_waiting(query, true);
            let class = flood.pick(|_| true).unwrap_or(belief);
            flood.charge(class, black_box(105));
            flood.set_waiting(query, false);
            flood.charge(belief, black_box(QUANTUM));
            class
        });
    });

    let mut blocked = Scheduler::new(&table);
    table.iter().for_each(|(class, _)| blocked.set_waiting(class, true));
    group.bench_function("four of five have no credit", |bencher| {
        bencher.iter(|| {
            let class = blocked.pick(|class| class == belief).unwrap_or(belief);
            blocked.skip_blocked(0, |class| class != belief);
            blocked.charge(class, black_box(QUANTUM));
            class
        });
    });
    group.finish();
}

criterion_group!(benches, scheduler);
criterion_main!(benches);
