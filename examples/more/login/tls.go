package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"net"
	"os"
	"time"
)

// certificate returns the one for HTTPS: of the files TLS_CERT and TLS_KEY, else,
// with -tls, one for localhost that is made on the spot and good for a day. Of that
// pin is what a browser can be told to trust. Without any it is nil.
func certificate(onTheSpot bool) (cert *tls.Certificate, pin string, err error) {
	var c tls.Certificate
	switch {
	case os.Getenv("TLS_CERT") != "":
		c, err = tls.LoadX509KeyPair(os.Getenv("TLS_CERT"), os.Getenv("TLS_KEY"))
	case onTheSpot:
		c, pin, err = selfSigned()
	default:
		return nil, "", nil
	}
	return &c, pin, err
}

func selfSigned() (c tls.Certificate, pin string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return c, "", err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return c, "", err
	}
	hash := sha256.Sum256(public)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, base64.StdEncoding.EncodeToString(hash[:]), nil
}

// tryIt is how to start a Chromium that trusts the certificate and keeps the keys of
// devices in memory, for machines without hardware for them.
func tryIt(url, pin string) string {
	return "chromium --user-data-dir=/tmp/login-profile" +
		" --enable-features=DeviceBoundSessions,EnableBoundSessionCredentialsSoftwareKeysForManualTesting" +
		" --ignore-certificate-errors-spki-list=" + pin + " " + url
}
