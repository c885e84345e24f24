//! What an idle connection costs.

use std::sync::Arc;

use super::broker::Broker;
use crate::doors::Stop;
use crate::doors::mqtt::connection::serve;
use crate::doors::mqtt::{Limits, MqttDoor};
use crate::identity::{Account, Users};

#[tokio::test]
async fn a_connections_task_is_small() {
    let broker = Broker::new();
    let nobody: [(&Arc<str>, &Account); 0] = [];
    let users = Arc::new(Users::new(nobody));
    let door = Arc::new(MqttDoor::new(
        broker.backend(),
        broker.retained(),
        users,
        Arc::default(),
        "/".into(),
        Limits::default(),
    ));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let serving = serve(door, stream.into(), address, Stop::new().1);
    let size = size_of_val(&serving);
    assert!(size <= 1024, "{size} bytes in the task of every connection");
}
