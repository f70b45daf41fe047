#!/bin/sh
# Makes the certificates of tests/tls.rs anew: good for a hundred years, and good for nothing but tests.
set -eu
cd "$(dirname "$0")"
new_key() { openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1.key"; }
authority() {
  new_key "$1"
  openssl req -x509 -new -key "$1.key" -subj "/CN=$1" -days 36500 -out "$1.pem" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
}
signed() { # name, authority, subject alternative name, use
  new_key "$1"
  printf 'subjectAltName=%s\nextendedKeyUsage=%s\nbasicConstraints=CA:FALSE\n' "$3" "$4" >extensions
  openssl req -new -key "$1.key" -subj "/CN=$1" |
    openssl x509 -req -CA "$2.pem" -CAkey "$2.key" -days 36500 -extfile extensions -out "$1.pem" 2>/dev/null
}
alone() { # name, subject alternative name
  new_key "$1"
  openssl req -x509 -new -key "$1.key" -subj "/CN=$1" -days 36500 -out "$1.pem" -addext "subjectAltName=$2" \
    -addext basicConstraints=CA:FALSE -addext extendedKeyUsage=clientAuth
}
authority authority
authority stranger
signed first authority DNS:first.test serverAuth
signed shop authority DNS:shop.test,DNS:www.shop.test serverAuth
signed shop-new authority DNS:shop.test serverAuth
signed wild authority 'DNS:*.wild.test' serverAuth
signed client authority DNS:client.test clientAuth
signed client-strange stranger DNS:client.test clientAuth
alone client-alone DNS:client.test
rm -f extensions authority.key stranger.key stranger.pem
