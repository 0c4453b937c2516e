use std::time::Duration;

use futures_util::StreamExt;
use margay_nft::{Event, Nft, Watch};
use margay_ruleset::{Observed, plan};
use tokio::time::timeout;

use crate::fixture::TestNamespace;
use crate::sample::{TABLE, sample};

/// Long enough that only a lost event takes it.
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_others_do_to_our_table_is_told() {
    let namespace = TestNamespace::new();
    let mut nft = Nft::open(&namespace.namespace).unwrap();
    let mut watch = Watch::open(&namespace.namespace, TABLE, &[nft.port()]).unwrap();
    let batch = plan(&sample(), &Observed::default());
    let restore = |nft: &mut Nft| {
        let observed = nft.observe(TABLE).unwrap();
        nft.apply(&plan(&sample(), &observed)).unwrap();
    };
    nft.apply(&batch).unwrap();
    // Of other tables, and by us: not told.
    namespace.nft("table inet other { chain c { accept; }; }");
    namespace.nft(&format!("table ip {TABLE} {{ chain c {{ accept; }}; }}"));
    for (edit, event) in [
        ("flush ruleset", Event::Deleted),
        ("add rule inet T class accept", Event::Changed),
        ("delete table inet T", Event::Deleted),
        ("add element inet T hosts4 { 10.9.9.9 }", Event::Changed),
    ] {
        namespace.nft(&edit.replace("inet T", &format!("inet {TABLE}")));
        let told = timeout(LONG, watch.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(told, event, "{edit}");
        restore(&mut nft);
    }
}
