//! How replies end, and what stands in their rows for it.

use bytes::Bytes;
use shared::domain::{Protocol, Provenance};

use crate::support::{Call, Reply, Rig, Step};

#[tokio::test]
async fn a_reply_with_trailers_is_complete() {
    let rig = Rig::start().await;
    rig.upstream.script(|seen| {
        let end = Bytes::from_static(b"0\r\nx-checksum: 1\r\n\r\n");
        Reply::open_stream("text/event-stream").pieces(seen.events()).then(Step::Send(end))
    });
    for protocol in Protocol::ALL {
        let call = Call::new(protocol, format!("trailers-{}", protocol.name())).streamed();
        let answer = rig.client.call(&call).await.expect(200);
        assert!(!answer.is_broken, "{}", answer.text());
        let row = rig.daemon.row(&call.model).await;
        assert_eq!((row.end.as_str(), row.provenance), ("complete", Provenance::Measured), "{row:?}");
    }
}
