//! A benchmark server that behaves like peer.js and uses socketioxide as its documentation shows.

use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (layer, io) = SocketIo::builder().max_buffer_size(4096).build_layer();
    io.ns("/", enter);
    io.ns("/secure", enter);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!(r#"{{"ready":true,"server":"{}"}}"#, listener.local_addr()?);
    axum::serve(listener, axum::Router::new().layer(layer)).await?;
    Ok(())
}

async fn enter(socket: SocketRef) {
    socket.on("join", async |socket: SocketRef, Data(room): Data<String>, ack: AckSender| {
        socket.join(room.clone());
        ack.send(&json!({ "success": true, "room": room })).ok();
    });
    socket.on("say", async |socket: SocketRef, Data(said): Data<(String, u64, u64, String)>| {
        socket.within(said.0.clone()).emit("said", &said).await.ok();
    });
    socket.on("echo", async |Data(payload): Data<Value>, ack: AckSender| {
        ack.send(&payload).ok();
    });
}
