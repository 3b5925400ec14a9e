//! `kill -9` while everybody is at work: what was acknowledged is there afterwards.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::child::Home;
use crate::drive::People;

/// Each round draws from its seed how much is done before the process is killed, and when exactly.
const SEEDS: [u64; 10] = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_being_killed() {
    let home = Home::new("");
    let people = People::new();
    let mut server = home.start().await;
    for seed in SEEDS {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (least, moment) = (rng.random_range(1..=8), Duration::from_micros(rng.random_range(0..30_000)));
        let killing = async {
            people.have_done(least).await;
            tokio::time::sleep(moment).await;
        };
        {
            let mut working = std::pin::pin!(people.work(&server));
            tokio::select! {
                () = killing => {}
                () = &mut working => panic!("the server went away by itself"),
            }
            server.kill();
            // Everybody notices.
            working.await;
        }
        server = home.start().await;
        people.check(&server).await;
    }
    // The ledger is whole: nothing of what was under way is half there, and it goes on.
    let ledger = attune::ledger::open(None, &home.data).await.unwrap();
    let counts = ledger.counts().await.unwrap();
    ledger.close().await;
    let [answers, feedback, votes, demonstrations, _] =
        people.counts().map(|count| i64::try_from(count).unwrap());
    assert!(counts.answers >= answers && counts.feedback >= feedback, "{counts:?}");
    assert!(counts.votes >= votes && counts.demonstrations >= demonstrations, "{counts:?}");
}
