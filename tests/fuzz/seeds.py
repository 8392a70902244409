"""Writes the seeds that are made rather than written: `python3 seeds.py`."""
import pathlib, json, base64, struct
here = pathlib.Path(__file__).parent
root = here.parent.parent
SEP = "\n====\n"

def put(target, name, content):
    folder = here / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

for file in sorted((root / "contracts").glob("*.toml")):
    put("contract_file", file.stem, file.read_text())
put("contract_file", "small", 'name = "a"\nnamespace = "/a"\n[auth]\nmode = "none"\n[rooms.r]\nname = "r-{id}"\n[client.join]\njoin = "r"\n[server.news]\nrooms = ["r"]\n')

for i, (text, chars, name, values) in enumerate([
    ("job:{jobId}", "", "job:1", "1"), ("{a}/{b}", ".@", "x/y", "x\ny"), ("lobby", "", "lobby", ""), ("chat:{room}", "*", "chat:ä b", "ä b"),
    ("user:{user.id}", "", "user:7", ""), ("a{x}b{y}c", "", "a1b2c", "1\n2")]):
    put("room_template", str(i), SEP.join([text, chars, name, values]))

for i, (template, payload) in enumerate([
    ('{"at":"{now}","id":"{payload.id}"}', '{"id":7}'), ('["{payload.items.0.id}",{"x":"{{a}} {room}"}]', '{"items":[{"id":null}]}'),
    ('"{payload}"', '[1,2,{"a":"b"}]'), ('{"u":"{user.id}","s":"{socket.id}","e":"{event.id}"}', 'null')]):
    put("template", str(i), template + SEP + payload)

for i, (rule, payload) in enumerate([
    ('owner(room) == user.id || "admin" in user.roles', "null"), ('payload.size() < 10 && payload.all(x, x > 1)', "[2,3]"),
    ('permitted(room, user.claims.rooms)', "{}"), ('capability(room, payload.token)', '{"token":"x"}'), ('has(payload.a) ? payload.a == 1 : false', '{"a":1}'),
    ('timestamp("2026-01-01T00:00:00Z") < now', "1"), ('!user.anonymous && payload.text.matches("^[a-z]+$")', '{"text":"abc"}')]):
    put("rule", str(i), rule + SEP + payload)

def b64(data): return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()
token = b64({"alg": "HS256", "typ": "JWT"}) + "." + b64({"sub": "ada", "exp": 4102444800}) + ".c2lnbmF0dXJl"
for i, (t, claims, header) in enumerate([
    (token, '{"sub":"ada","exp":4102444800,"roles":["admin"],"permissions":["a:b"]}', "Bearer " + token),
    ("a.b.c", '{"sub":7,"exp":"x"}', "token=" + token + "; a=b"), ("", '{"sub":"x","exp":1e300,"nbf":-1,"iat":0,"aud":["a"],"iss":"b"}', "Basic x"),
    ("token=" + token, '{"use":"room","room":"a","exp":4102444800}', "bearer x")]):
    put("token", str(i), SEP.join([t, claims, header]))

def frame(opcode, payload, fin=True, mask=b"\1\2\3\4"):
    head = bytes([(0x80 if fin else 0) | opcode])
    n = len(payload)
    head += bytes([0x80 | n]) if n < 126 else bytes([0xFE]) + struct.pack(">H", n) if n < 65536 else bytes([0xFF]) + struct.pack(">Q", n)
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
put("frame", "texts", frame(1, b"40") + frame(1, "42[\"ä\"]".encode()) + frame(1, b"x" * 300))
put("frame", "fragments", frame(1, "ab\u20ac".encode()[:3], fin=False) + frame(9, b"ping") + frame(0, "ab\u20ac".encode()[3:]) + frame(8, struct.pack(">H", 1000) + b"bye"))
put("frame", "binary", frame(2, bytes(range(200))) + frame(10, b""))
put("frame", "bad", b"\x81\x02hi" + frame(3, b""))

for i, (text, attachments) in enumerate([
    ('0/chat,{"token":"x"}', ""), ('2/chat,12["say",{"a":1},"b"]', ""), ('51-["bin",{"_placeholder":true,"num":0}]', "abc"),
    ('62-/a,3[{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]', "a\nb"), ("1/chat,", ""), ("31[]", ""), ("2probe", ""), ("42[\"x\"]", "")]):
    put("packet", str(i), text + SEP + attachments)

GET = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\n"
put("handshake", "open", GET + "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://a\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
put("handshake", "polling", "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n")
put("handshake", "post", "POST /socket.io/?EIO=4&transport=polling&sid=x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n40")
put("handshake", "part", GET)

node = b"n1"
body = b""
put("cluster_message", "frame", b"rc\x01" + struct.pack(">QQQ", 1, 2, 3) + bytes([len(node)]) + node + body)

for i, (method, path, body) in enumerate([
    ("POST", "events", '{"contract":"chat","event":"message","data":{"text":"x"},"params":{"room":"r"},"id":"1"}'),
    ("POST", "events", '{"events":[{"contract":"x","event":"y","data":null}]}'),
    ("POST", "emit", '{"namespace":"/","rooms":["r"],"event":"e","args":[1,{"a":null}],"volatile":true}'),
    ("GET", "connections?namespace=/&limit=2&cursor=x", ""), ("GET", "rooms/r?namespace=/", ""), ("GET", "openapi.json", ""),
    ("PUT", "owners", '{"namespace":"/","room":"r","owner":"ada","ttl":"1h"}'), ("DELETE", "owners", '{"namespace":"/","room":"r"}'),
    ("GET", "history?namespace=/&room=r", ""), ("POST", "join", '{"namespace":"/","user":"ada","room":"r"}'), ("POST", "disconnect", '{"namespace":"/","socket":"x"}')]):
    put("http_api", str(i), SEP.join([method, path, body]))

put("proxy_header", "v1", b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET /")
put("proxy_header", "v1_unknown", b"PROXY UNKNOWN\r\n")
V2 = b"\r\n\r\n\0\r\nQUIT\n"
put("proxy_header", "v2_ipv4", V2 + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 192, 0, 2, 2, 1, 2, 3, 4]) + b"GET /")
put("proxy_header", "v2_ipv6", V2 + b"\x21\x21\x00\x24" + bytes(range(36)))
put("proxy_header", "v2_local", V2 + b"\x20\x00\x00\x00")

for i, text in enumerate([
    "192.0.2.43, 198.51.100.17", 'for=192.0.2.60;proto=http;by=203.0.113.43, for="[2001:db8::1]:4711"', 'for=_hidden, for=unknown;host="a\\\"b"',
    "2001:db8::1", ",, for=192.0.2.1 ,", "for=192.0.2.1:80;for=2"]):
    put("forwarding_headers", str(i), text)

put("recovery_place", "places", "r1:\nr1!\nr1:abcdefgh1.f\nr1:abcdefgh1.-+2-3,ijklmnop2.0+5-9+b-ff\nr1:abcdefgh!")
