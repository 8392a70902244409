//! A backend that publishes to the nodes' clients through Redis.

use fred::prelude::*;
use socketioxide_emitter::{Driver, IoEmitter};

struct Redis(Client);

impl Driver for Redis {
    type Error = Error;

    async fn emit(&self, channel: String, data: Vec<u8>) -> Result<(), Error> {
        // In a Redis Cluster, `spublish` costs less, because only one shard gets the message.
        self.0.publish(channel, data.as_slice()).await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Builder::from_config(Config::from_url("redis://127.0.0.1:6379")?).build()?;
    client.init().await?;
    let redis = Redis(client);
    IoEmitter::new().to("lobby").emit("news", "hello", &redis).await?;
    IoEmitter::new().to("lobby").except("muted").emit("news", "hello", &redis).await?;
    IoEmitter::new().to("lobby").join("hall", &redis).await?;
    Ok(())
}
