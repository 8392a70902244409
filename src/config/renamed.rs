//! Names that settings have in other Socket.IO servers and in earlier versions of roomcast. The error for each one
//! gives its name here.

use figment::value::Value;

use super::draft::Draft;
use super::tree;

/// The other name of a setting, and what to write instead.
const RENAMED: [(&str, &str); 21] = [
    ("api.host", "write the address and the port as `api.listen`"),
    ("api.port", "write the address and the port as `api.listen`"),
    ("auth.jwks_file", "write `auth.jwks.file`"),
    ("auth.jwks_url", "write `auth.jwks.url`"),
    ("auth.jwt_secret", "write `auth.keys = [{ secret = \"…\" }]`"),
    ("auth.public_key", "write `auth.keys = [{ algorithm = \"RS256\", public_key = \"…\" }]`"),
    ("auth.secret", "write `auth.keys = [{ secret = \"…\" }]`"),
    ("contracts.paths", "write `contracts.files`"),
    ("cors", "write `server.cors_origins`"),
    ("listen", "write `server.listen`"),
    ("logging", "write `[log]`"),
    ("redis.channel_prefix", "write `redis.prefix`"),
    ("redis.host", "write `redis.url`"),
    ("redis.port", "write `redis.url`"),
    ("redis.uri", "write `redis.url`"),
    ("server.cors", "write `server.cors_origins`"),
    ("server.cors_origin", "write `server.cors_origins`, a list"),
    ("server.host", "write the address and the port as `server.listen`"),
    ("server.max_buffer_size", "write `server.queue` for packets that wait, `server.max_payload` for the size of one"),
    ("server.max_http_buffer_size", "write `server.max_payload`"),
    ("server.port", "write the address and the port as `server.listen`"),
];

/// Reports each of these names as a mistake, and removes it from the values.
pub(super) fn refuse(draft: &mut Draft) {
    for (key, remedy) in RENAMED {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let layer = tree::get(&draft.origins.values, &path).map(Value::tag);
        if layer.is_some() {
            draft.refuse(&path, "this setting has another name here", remedy);
            tree::remove(&mut draft.origins.values, &path);
        }
    }
}
