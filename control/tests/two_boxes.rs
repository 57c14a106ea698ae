//! Two whole boxes and the network between them.
use control::sim::*;
use std::time::Duration;

#[test]
fn smoke() {
    let mut world = World::new(&Plan::default(), 1);
    let there = world.stream(0, 1, Duration::from_millis(20));
    let back = world.stream(1, 0, Duration::from_millis(20));
    world.run(Duration::from_secs(10));
    for s in [there, back] {
        println!(
            "{} sent {} arrived {:?}",
            world.streams[s].sent.len(),
            world.streams[s].arrivals.len(),
            world.streams[s].arrivals.first()
        );
    }
    println!("{:#?} {:?}", world.stories, world.violations);
    world.nodes.iter().for_each(Node::selfcheck);
    panic!();
}
