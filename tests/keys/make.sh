#!/bin/sh
# Makes the certificates of the tests again: an authority, a server for 127.0.0.1 and localhost, a client, an authority
# of nodes and a node (cluster.tls), and an authority that is not trusted. None of them protects anything.
set -eu
cd "$(dirname "$0")"
DAYS=7300

authority() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$DAYS" -subj "/CN=$2" \
    -keyout "$1-key.pem" -out "$1.pem" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign"
}

signed() { # name, common name, extensions, authority
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" -keyout "$1-key.pem" -out "$1.csr"
  printf '%s\n' "basicConstraints=critical,CA:FALSE" "$3" > "$1.ext"
  openssl x509 -req -in "$1.csr" -CA "$4.pem" -CAkey "$4-key.pem" -days "$DAYS" -extfile "$1.ext" -out "$1.pem"
  rm "$1.csr" "$1.ext"
}

authority ca "Test authority"
authority stranger "Stranger's authority"
signed server localhost "subjectAltName=DNS:localhost,IP:127.0.0.1
extendedKeyUsage=serverAuth" ca
signed client "Test node" "extendedKeyUsage=clientAuth" ca
authority nodes "Authority of nodes"
signed node "Any node" "subjectAltName=DNS:node.roomcast.internal
extendedKeyUsage=serverAuth,clientAuth" nodes
rm -f ca-key.pem stranger-key.pem nodes-key.pem ./*.srl
