//! A client's scope.

use std::sync::Arc;

use async_trait::async_trait;
use linkspan_contract::{BackendError, Client, Connection, DeliverySink, Lane, LaneEvents, ReceiptSink};

use crate::claim::Ears;
use crate::here::Here;
use crate::house::House;
use crate::lane::MqttLane;
use crate::publisher::Publisher;

/// One client: what it has here is a connection of the engine's.
pub(crate) struct MqttConnection {
    house: Arc<House>,
    client: Client,
    inner: Box<dyn Connection>,
}

impl MqttConnection {
    pub(crate) fn new(house: Arc<House>, client: &Client, inner: Box<dyn Connection>) -> Self {
        house.locals.see(&client.vhost);
        Self { house, client: client.clone(), inner }
    }
}

#[async_trait]
impl Connection for MqttConnection {
    fn attach(&mut self, sink: Arc<dyn DeliverySink>) {
        self.inner.attach(sink);
    }

    async fn lane(
        &mut self,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Result<Box<dyn Lane>, BackendError> {
        let ears = Ears::new(receipts, Arc::clone(&events));
        let here = Here::new(Arc::clone(&ears));
        let inner = self.inner.lane(Arc::clone(&here) as _, events).await?;
        let house = Arc::clone(&self.house);
        let publisher = Publisher::shared(Arc::clone(&house), &self.client, Arc::clone(&ears), here);
        Ok(Box::new(MqttLane::new(house, &self.client, inner, ears, publisher, None)))
    }

    async fn close(self: Box<Self>) {
        self.inner.close().await;
    }
}
